/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract between the programs and user space: keys and values of every map, the event, and the
 * verdict and reason numbers. ram_ebpf/dataplane/abi.py mirrors it; a test compiles this header and
 * compares both. A number once given never changes its meaning: logs and metrics outlive a version.
 *
 * Addresses are 16 bytes in network order, IPv4 in its IPv4-mapped form (RFC 4291 2.5.5.2). Ports are in
 * host order. Times are nanoseconds of CLOCK_BOOTTIME, or of CLOCK_MONOTONIC where programs cannot read that
 * (before Linux 5.8): no clock jump moves either, and the first also counts while the host is suspended.
 */
#ifndef RAM_ABI_H
#define RAM_ABI_H

#include <linux/types.h>

#define RAM_CLASS_COUNT 40 /* character classes of a host name; see ram_ebpf/policy/classes.py */
#define RAM_CLASS_ROOM 64  /* the next power of two, so that any masked number is in bounds */
#define RAM_CLASS_OTHER 0  /* a byte that no host name has */
#define RAM_CLASS_SEP 39   /* the start of a label */
#define RAM_HASH_LANES 4
#define RAM_PORT_LISTS_MAX 64  /* different lists of ports in one policy; see struct ram_rule */
#define RAM_NAME_MAX 255       /* bytes of a name on the wire, RFC 1035 2.3.4 */
#define RAM_LABELS_MAX 127     /* labels in it */
#define RAM_ANSWER_STEPS 24    /* labels and records walked by one program */
#define RAM_ANSWER_PROGRAMS 28 /* programs that one reply may take before it is handed over */
#define RAM_ALIAS_DEPTH_MAX 8  /* aliases asked in queries of their own, one behind the other */
#define RAM_DATAGRAM_MAX 4352  /* bytes of a reply from this host's own resolver that is looked into */
#define RAM_SCOPES_MAX 1024
#define RAM_SCOPE_MASK 0x07ff /* the bits of a scope's number, which is RAM_SCOPES_MAX for none */
#define RAM_DEPTH_SHIFT 16    /* of a cgroup's depth in the value of `scope_self` */
#define RAM_MARK_SHIFT 16     /* of the mark of known ports in the same, at devices */
#define RAM_SOME_PORTS_MAX 8  /* in each list of ports of struct ram_config */
#define RAM_COMM_LEN 16
#define RAM_BEGINNING_MAX 4096	/* bytes of a connection within which its name has to end */
#define RAM_BEGINNING_ROOM 4352 /* with what a piece may be copied to without its length being known */
#define RAM_HELLO_STEPS 32	/* of reading a ClientHello, by one program */
#define RAM_REQUEST_STEPS 208	/* of reading a request, by one program */
#define RAM_BEGINNING_RUNS 20	/* of these programs */

/* One in each of the two modes of a policy; see ram_verdict. */
enum ram_mode {
	RAM_MODE_ENFORCE = 0,
	RAM_MODE_AUDIT = 1,
};

/* How much of a scope's traffic is governed. */
enum ram_posture {
	RAM_POSTURE_STRICT = 0,
	RAM_POSTURE_REGISTRIES = 1, /* only what is recognised as a registry's */
};

/* What becomes of connections of which nobody knows whether they are a registry's. */
enum ram_unknown {
	RAM_UNKNOWN_ALLOW = 0,
	RAM_UNKNOWN_PROBE = 1, /* they pass, and user space is told, to ask */
	RAM_UNKNOWN_DENY = 2,  /* they are refused until it has asked */
};

enum ram_verdict {
	RAM_VERDICT_NONE = 0, /* nothing was decided: the event is about DNS */
	RAM_VERDICT_ALLOW = 1,
	RAM_VERDICT_DENY = 2,
	RAM_VERDICT_WOULD_DENY = 3, /* audit: passed, and would have been denied */
};

/* Every number has its sentence in docs/reasons.md. */
enum ram_reason {
	RAM_REASON_NONE = 0,

	RAM_REASON_ALLOWED_LEARNED = 1,
	RAM_REASON_ALLOWED_GRACE = 2,
	RAM_REASON_ALLOWED_ADDRESS = 3,
	RAM_REASON_ALLOWED_RESOLVER = 4,
	RAM_REASON_ALLOWED_ESTABLISHED = 5,
	RAM_REASON_ALLOWED_INBOUND = 6,
	RAM_REASON_ALLOWED_PROTOCOL = 7,
	RAM_REASON_ALLOWED_RESOLVER_REPLY = 8,
	RAM_REASON_ALLOWED_OTHER = 9,
	RAM_REASON_ALLOWED_UNASKED = 10,
	RAM_REASON_ALLOWED_OWN = 11,
	RAM_REASON_ALLOWED_RESPONDER = 12,
	RAM_REASON_ALLOWED_NAME = 13,

	RAM_REASON_DENIED_UNKNOWN_ADDRESS = 16,
	RAM_REASON_DENIED_EXPIRED = 17,
	RAM_REASON_DENIED_PORT = 18,
	RAM_REASON_DENIED_PROTOCOL = 19,
	RAM_REASON_DENIED_MALFORMED = 20,
	RAM_REASON_DENIED_FRAGMENT = 21,
	RAM_REASON_DENIED_RESOLVER = 22,
	RAM_REASON_DENIED_SOURCE_ROUTE = 23,
	RAM_REASON_DENIED_PRIVATE_ADDRESS = 24,
	RAM_REASON_DENIED_DNS_OVER_TLS = 25,
	RAM_REASON_DENIED_DNS_OVER_QUIC = 26,
	RAM_REASON_DENIED_DNS_OVER_HTTPS = 27,
	RAM_REASON_DENIED_QUERY_NAME = 28,
	RAM_REASON_DENIED_NOT_A_QUERY = 29,
	RAM_REASON_DENIED_NEW_CONTAINER = 30,
	RAM_REASON_DENIED_REGISTRY = 31,

	RAM_REASON_DNS_LEARNED = 32,
	RAM_REASON_DNS_NOT_LISTED = 33,
	RAM_REASON_DNS_NO_QUERY = 34,
	RAM_REASON_DNS_WRONG_QUESTION = 35,
	RAM_REASON_DNS_TRUNCATED = 36,
	RAM_REASON_DNS_MALFORMED = 37,
	RAM_REASON_DNS_TOO_MANY = 38,
	RAM_REASON_DNS_MAP_FULL = 39,
	RAM_REASON_DNS_WRONG_INTERFACE = 40,
	RAM_REASON_DNS_NO_ADDRESS = 41,
	RAM_REASON_DNS_NOT_A_QUERY = 42,
	RAM_REASON_DNS_UNTRUSTED_SENDER = 43,
	RAM_REASON_DNS_OVER_TCP = 44,
	RAM_REASON_DNS_LATE = 45,
	RAM_REASON_DNS_PRIVATE_ADDRESS = 46,
	RAM_REASON_DNS_OTHER_NAME = 47,
	RAM_REASON_DNS_ALIAS = 48,
	RAM_REASON_DNS_HELD = 49,
	RAM_REASON_DENIED_REGISTRY_PORT = 50,
	RAM_REASON_DENIED_UNASKED = 51,
	RAM_REASON_DNS_RECOGNISED = 52,
	RAM_REASON_NAME_MISMATCH = 56,
	RAM_REASON_DENIED_NOT_NAMED = 57,
	RAM_REASON_DENIED_SEGMENT = 58,
	RAM_REASON_DENIED_REMOVED = 59,

	RAM_REASON_COUNT = 64,
};

/* Where an event comes from; the hooks of a cgroup named as in enum bpf_attach_type. */
enum ram_hook {
	RAM_HOOK_INET_INGRESS = 0,
	RAM_HOOK_INET_EGRESS = 1,
	RAM_HOOK_INET4_CONNECT = 2,
	RAM_HOOK_INET6_CONNECT = 3,
	RAM_HOOK_UDP4_SENDMSG = 4,
	RAM_HOOK_UDP6_SENDMSG = 5,
	/* Of a device, by where the packet goes as seen from what is governed: incoming, outgoing. */
	RAM_HOOK_DEVICE_INCOMING = 6,
	RAM_HOOK_DEVICE_OUTGOING = 7,
};

/* Beside the number of the scope, in the value of `scope_self`; above them a cgroup's depth or a device's
 * mark. */
enum ram_place_flag {
	RAM_PLACE_SENDMSG = 0x0800, /* a cgroup's hook of sendmsg(), not of connect() */
	RAM_PLACE_LEARN = 0x1000,   /* a device, where whoever was there before refuses for a moment longer */
	RAM_PLACE_HOLD = 0x2000,    /* a bridge: what is not marked may be somebody else's, see bpf/tc.c */
	RAM_PLACE_NO_LINK_HEADER = 0x4000, /* the device carries IP packets without a header of its own */
	RAM_PLACE_OWN_TRAFFIC = 0x8000,	   /* of this host's own, not of what is behind the device */
};

/* Flags of a trusted resolver. */
enum ram_resolver_flag {
	RAM_RESOLVER_LOCAL = 1,	     /* lives on this host: its replies come over the loopback interface */
	RAM_RESOLVER_TRANSLATED = 2, /* behind NAT to ports of its own, as Docker's 127.0.0.11 is */
};

enum ram_config_flag {
	RAM_CONFIG_ALLOWED_NAMES_ONLY = 1, /* queries for names that no rule allows are refused */
	RAM_CONFIG_OTHER_DNS_PORTS = 2,	   /* some trusted resolver has another port than 53 */
	RAM_CONFIG_NESTED = 4,		   /* some governed cgroup is inside another one */
	RAM_CONFIG_READ_NAMES = 8,	   /* the name on the wire is read, where a name opened the address */
	RAM_CONFIG_CUT_EARLIER =
		16, /* of connections that were there before, it is not known: they are cut */
};

enum ram_rule_flag {
	RAM_RULE_DENY = 1,	     /* its names are refused; their addresses too, in posture registries */
	RAM_RULE_PRIVATE = 2,	     /* private addresses are expected, whichever */
	RAM_RULE_PRIVATE_RANGES = 4, /* those in private_ranges are */
	RAM_RULE_UNNAMED = 8,	     /* a TLS connection to it need not say its name */
	RAM_RULE_PROXY = 16,	     /* a proxy: what a connection asks it for is judged */
	RAM_RULE_ADDRESS = 32,	     /* of addresses, in `ranges`; its list of ports is none */
};

enum ram_opening_flag {
	RAM_OPENING_PRIVATE = 1, /* opens nothing: the address is private, and the rule expects none */
};

struct ram_config {
	/* These two stay where they are: by them, a later version knows whether it understands what it finds.
	 */
	__u32 layout;	  /* of what outlives user space; see LAYOUT in abi.py */
	__u32 generation; /* of the policy: greater than that of any before, since this host was started */
	__u64 grace_ns;
	__u64 query_lifetime_ns; /* a reply later than this after its query is not learned */
	__u64 hold_ns;		 /* how long replies over TCP wait for user space; 0: never */
	__u64 lease_ns;		 /* how long user space may be gone before nothing is refused; 0: for ever */
	__u64 identity_key[2];	 /* secret of this start; see lib/identity.h */
	__u64 zero;		 /* always 0, which the verifier does not know; see ram_forget() */
	__u32 mode;		 /* enum ram_mode */
	__u32 flags;		 /* enum ram_config_flag */
	__u32 minimum_ttl;	 /* seconds */
	__u32 maximum_ttl;	 /* seconds */
	__u32 automaton_start;	 /* 0 when the policy has no pattern that needs the automaton */
	__u32 port_lists;	 /* how many there are */
	__u32 loopback_ifindex;	 /* 1 in every network namespace; 0 in tests that have no other interface */
	__u32 multiplier[RAM_HASH_LANES]; /* secret of this start, each below 2^31 - 1 */
	__u8 class_of[256];
	__u32 suffix_depths; /* bit i: `names` has suffixes of i labels; bit 31: of 31 and more */
	__u32 posture;	     /* enum ram_posture */
	__u32 unknown;	     /* enum ram_unknown */
	__u16 registry_ports[RAM_SOME_PORTS_MAX]; /* refused in posture registries; 0: none */
	__u16 asked_ports[RAM_SOME_PORTS_MAX];	  /* on which `unknown` has its effect */
};

/* names: the keyed hash of a literal suffix to the rules that end in it. Rule 0 is none; of several
 * matching rules the greatest number is the most specific one. */
struct ram_suffix_key {
	__u32 hash[RAM_HASH_LANES];
};

struct ram_suffix {
	__u32 exact; /* the suffix is the whole name */
	__u32 one;   /* "*.suffix": exactly one label before it */
	__u32 deep;  /* "**.suffix": one label or more before it */
};

/* automaton: one state of the automaton for in-label globs; state 0 is dead. */
struct ram_state {
	__u32 accept; /* rule, when the whole name was read */
	__u16 next[RAM_CLASS_ROOM];
};

/* rules, indexed by rule number. Rules with the same ports share a list of ports, known by its number;
 * `ports` says for each port in which lists it is, a bit for each. */
struct ram_rule {
	__u32 port_list;
	__u32 flags;	/* enum ram_rule_flag */
	__u64 identity; /* the same number whichever policy has this rule; never 0 */
};

struct ram_endpoint {
	__u32 address[4];
	__u16 port;
	__u16 zero;
};

/*
 * learned and seeded: the address and the list of ports that it is open on. In posture registries also which
 * addresses are refused, under numbers that are none of a list.
 */
enum ram_refused_list {
	RAM_REFUSED_LIST_ALL = 0x10000, /* on every port */
	RAM_REFUSED_LIST_ON = 0x20000,	/* on one port, which is added to this */
};

struct ram_opening_key {
	__u32 address[4];
	__u32 port_list;
};

struct ram_opening {
	__u64 expires_ns;
	__u32 rule;
	__u32 flags; /* enum ram_opening_flag */
};

/* ranges: longest-prefix match. The port, in network order, is the first 32 bits of the prefix. */
struct ram_range_key {
	__u32 prefixlen; /* 32 + 96 + prefix length, or 32 + prefix length for IPv6 */
	__u32 port_be;
	__u32 address[4];
};

/* private_ranges: the same with the rule, in host order, in the place of the port. */
struct ram_range {
	__u32 rule; /* 0: a hole in a wider range */
};

/* queries and unlisted: outstanding DNS queries. */
struct ram_query_key {
	__u32 resolver[4];
	__u32 local[4];
	__u16 resolver_port;
	__u16 local_port;
	__u16 id;
	__u16 zero;
};

struct ram_query {
	__u64 asked_ns;
	__u64 identity; /* of the question name */
	__u32 rule;	/* that allows the name; 0: none */
	__u32 alias;	/* that allows a name of which this one is an alias target; 0: none */
	__u32 ifindex;	/* by which the query left; 0: any */
	__u16 qtype;
	__u16 depth; /* aliases that led here */
};

/* aliases: names that an allowed name's CNAME record (or HTTPS record) leads to, by their identity. */
struct ram_alias {
	__u64 expires_ns;
	__u32 rule;
	__u32 depth;
};

/* inbound, held, released and established: connections, as a socket of the scope sees them. */
struct ram_flow {
	__u32 local[4];
	__u32 remote[4];
	__u16 local_port;
	__u16 remote_port;
	__u32 protocol; /* of `established`; the others hold TCP only, and have 0 here */
};

/* held: queries over TCP; replies wait until as many were dealt with (released). */
struct ram_hold {
	__u64 since_ns;
	__u32 queries;
	__u32 zero;
};

/* responder: where refused connections are answered, in each network namespace that has such a listener. */
struct ram_responder {
	__u32 ipv4[4];
	__u32 ipv6[4];
	__u32 priority; /* SO_PRIORITY of the listening sockets, a secret of this start; see lib/responder.h
			 */
	__u16 port;	/* 0: there is none */
	__u16 zero;
};

/* led_sockets and led: what a connection was for that was led to the responder. */
struct ram_led {
	__u64 time_ns;
	__u32 address[4];
	__u32 scope;
	__u16 port;
	__u16 reason; /* enum ram_reason */
};

/* How far it is known what a connection is for. */
enum ram_stage {
	RAM_STAGE_PASSES = 0,	  /* nothing of it is read, or nothing more */
	RAM_STAGE_UNANSWERED = 1, /* the other end has not acknowledged its beginning; at devices */
	RAM_STAGE_UNNAMED = 2,	  /* what it sends is read, until its name is known */
	RAM_STAGE_NAMED = 3, /* its name was read; another ClientHello may follow, and would be read too */
	RAM_STAGE_CUT = 4,
	RAM_STAGE_TUNNELLED = 5, /* as NAMED, through a proxy */
	RAM_STAGE_DONE = 6,	 /* nothing more of it is read; what was is not to be replaced */
};

/* established: what is remembered of a connection. Sequence numbers are TCP's, in host order. */
struct ram_connection {
	__u32 rule;
	__u32 stage;	  /* enum ram_stage */
	__u32 start;	  /* sequence number of its first byte, or of that of its last ClientHello */
	__u32 named;	  /* of the one behind what was read of it */
	__u64 identity;	  /* of the rule; 0: there is none */
	__u32 generation; /* in which `rule` is its number */
	__u32 port;	  /* that it is for, which is not always the one that it goes to */
};

/* peers (socket storage): the remote end that this socket was allowed to reach. */
struct ram_peer {
	__u32 address[4];
	__u16 port;
	__u16 local_port;
	__u16 protocol;
	__u16 set;
	struct ram_connection connection;
};

struct ram_event {
	__u64 time_ns;
	__u64 cgroup_id; /* 0 where the kernel cannot tell */
	__u64 socket_cookie;
	__u32 address[4]; /* the remote end; for DNS the resolver */
	__u32 pid;	  /* 0 where the kernel cannot tell */
	__u32 uid;	  /* 2^32 - 1 where the kernel cannot tell */
	__u32 rule;
	__u32 scope;  /* its number */
	__u32 detail; /* RAM_REASON_DNS_OVER_TCP: how many queries the connection has sent; of a connection's
		       * beginning, how long the name is that it ends with */
	__u32 packet_len; /* bytes of the packet, or of a connection's beginning, that follow this structure
			   */
	__u16 port;
	__u16 dns_offset; /* where in the packet the DNS message begins */
	__u16 reason;	  /* enum ram_reason */
	__u8 verdict;	  /* enum ram_verdict */
	__u8 hook;	  /* enum ram_hook */
	__u8 protocol;	  /* IANA protocol number */
	__u8 link_len;	  /* bytes of the packet in front of its IP header */
	__u8 beginning;	  /* not a packet follows, but struct ram_flow and a connection's first bytes */
	__u8 zero;
	__u32 acknowledged; /* of a segment on its way out that is refused: what it acknowledges, in host
			       order */
	char comm[RAM_COMM_LEN];
};

/*
 * beginnings, and firsts (socket storage): the first bytes of a connection, up to its name, or those behind a
 * ClientHello. From `event` on, it is what user space is sent.
 */
struct ram_beginning {
	__u64 gathered;	    /* the number under way */
	__u32 start;	    /* sequence number of the first byte */
	__u32 held;	    /* bytes */
	__u32 at;	    /* where to read on */
	__u32 part;	    /* what is read next */
	__u32 need;	    /* bytes of the number under way that are missing */
	__u32 skip;	    /* bytes to pass over before that */
	__u32 record_left;  /* bytes of the TLS record under way */
	__u32 message_left; /* bytes of the ClientHello behind those of `need` and `skip` */
	__u32 outcome;	    /* enum ram_beginning_read */
	__u32 name_at;
	__u32 name_length;
	__u32 runs;	   /* of programs that have read */
	__u32 inner;	   /* where it begins what goes through the tunnel under way; 0: there is none */
	__u32 hello;	   /* where the ClientHello begins that is read; its names are behind that */
	__u16 tunnel_port; /* of the target of the last CONNECT, 0: there was none */
	__u16 connects;	   /* 1: the CONNECT that was read has not ended */
	__u8 again;	   /* 1: another ClientHello went before these bytes */
	__u8 may_follow;   /* 1: the ClientHello is one to which a HelloRetryRequest may be the answer */
	__u8 early_data;   /* 1: what follows the ClientHello may be encrypted (RFC 8446 4.2.10) */
	__u8 zero;
	struct ram_event event;
	struct ram_flow flow;
	__u8 bytes[RAM_BEGINNING_ROOM];
};

/* Places in the program arrays. */
enum ram_ingress_program {
	RAM_INGRESS_PROGRAM_MAIN = 0,
	RAM_INGRESS_PROGRAM_ANSWERS = 1,
	RAM_INGRESS_PROGRAM_TELL = 2,
	RAM_INGRESS_PROGRAM_COUNT = 3,
};

enum ram_egress_program {
	RAM_EGRESS_PROGRAM_MAIN = 0,
	RAM_EGRESS_PROGRAM_QUERY = 1,
	RAM_EGRESS_PROGRAM_RULE = 2,
	RAM_EGRESS_PROGRAM_REFUSE = 3,	     /* on devices only */
	RAM_EGRESS_PROGRAM_REFUSE_QUERY = 4, /* likewise */
	RAM_EGRESS_PROGRAM_BEGINNING = 5,
	RAM_EGRESS_PROGRAM_HELLO = 6,
	RAM_EGRESS_PROGRAM_NAME = 7,
	RAM_EGRESS_PROGRAM_REQUEST = 8,
	RAM_EGRESS_PROGRAM_COUNT = 9,
};

#endif
