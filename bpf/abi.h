/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract between the programs and user space: keys and values of every map, the event, and the
 * verdict and reason numbers. ram_ebpf/dataplane/abi.py mirrors it; a test compiles this header and
 * compares both. A number once given never changes its meaning: logs and metrics outlive a version.
 *
 * Addresses are 16 bytes in network order, IPv4 in its IPv4-mapped form (RFC 4291 2.5.5.2). Ports are in
 * host order. Times are nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_ns), which no clock jump moves.
 */
#ifndef RAM_ABI_H
#define RAM_ABI_H

#include <linux/types.h>

#define RAM_CLASS_COUNT 40 /* character classes of a host name; see ram_ebpf/policy/classes.py */
#define RAM_CLASS_OTHER 0  /* a byte that no host name has */
#define RAM_CLASS_SEP 39   /* the start of a label */
#define RAM_HASH_LANES 4
#define RAM_PORTS_MAX 8	     /* ports of one rule */
#define RAM_NAME_MAX 255     /* bytes of a name on the wire, RFC 1035 2.3.4 */
#define RAM_LABELS_MAX 127   /* labels in it */
#define RAM_ANSWER_STEPS 512 /* labels and records walked in one reply before it is handed over */
#define RAM_PORT_ANY 0
#define RAM_COMM_LEN 16

/* One in each of the two modes of a policy; see ram_verdict. */
enum ram_mode {
	RAM_MODE_ENFORCE = 0,
	RAM_MODE_AUDIT = 1,
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

	RAM_REASON_DENIED_UNKNOWN_ADDRESS = 16,
	RAM_REASON_DENIED_EXPIRED = 17,
	RAM_REASON_DENIED_PORT = 18,
	RAM_REASON_DENIED_PROTOCOL = 19,
	RAM_REASON_DENIED_MALFORMED = 20,
	RAM_REASON_DENIED_FRAGMENT = 21,
	RAM_REASON_DENIED_RESOLVER = 22,
	RAM_REASON_DENIED_SOURCE_ROUTE = 23,

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

	RAM_REASON_COUNT = 48,
};

/* Where an event comes from, named as in enum bpf_attach_type. */
enum ram_hook {
	RAM_HOOK_INET_INGRESS = 0,
	RAM_HOOK_INET_EGRESS = 1,
	RAM_HOOK_INET4_CONNECT = 2,
	RAM_HOOK_INET6_CONNECT = 3,
	RAM_HOOK_UDP4_SENDMSG = 4,
	RAM_HOOK_UDP6_SENDMSG = 5,
};

/* Flags of a trusted resolver. */
enum ram_resolver_flag {
	RAM_RESOLVER_LOCAL = 1, /* lives on this host: its replies come over the loopback interface */
};

struct ram_config {
	__u64 grace_ns;
	__u64 query_lifetime_ns;	  /* a reply later than this after its query is not learned */
	__u32 mode;			  /* enum ram_mode */
	__u32 minimum_ttl;		  /* seconds */
	__u32 maximum_ttl;		  /* seconds */
	__u32 automaton_start;		  /* 0 when the policy has no pattern that needs the automaton */
	__u32 multiplier[RAM_HASH_LANES]; /* secret of this start, each below 2^31 - 1 */
	__u64 zero;			  /* always 0, which the verifier does not know; see ram_forget() */
	__u8 class_of[256];
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
	__u16 next[RAM_CLASS_COUNT];
};

/* rules, indexed by rule number. */
struct ram_rule {
	__u16 port[RAM_PORTS_MAX];
	__u32 ports;
};

struct ram_endpoint {
	__u32 address[4];
	__u16 port;
	__u16 zero;
};

/* learned and seeded: endpoint to what opened it. Port RAM_PORT_ANY only says that the address is known. */
struct ram_opening {
	__u64 expires_ns;
	__u32 rule;
	__u32 zero;
};

/* ranges: longest-prefix match. The port, in network order, is the first 32 bits of the prefix. */
struct ram_range_key {
	__u32 prefixlen; /* 32 + 96 + prefix length, or 32 + prefix length for IPv6 */
	__u32 port_be;
	__u32 address[4];
};

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
	__u32 hash[RAM_HASH_LANES]; /* of the question name */
	__u32 rule;
	__u16 qtype;
	__u16 zero;
};

/* inbound: connections that somebody else opened to a socket of the scope. */
struct ram_flow {
	__u32 local[4];
	__u32 remote[4];
	__u16 local_port;
	__u16 remote_port;
	__u32 zero;
};

/* peers (socket storage): the remote end that this socket was allowed to reach. */
struct ram_peer {
	__u32 address[4];
	__u16 port;
	__u16 set;
	__u32 rule;
};

struct ram_event {
	__u64 time_ns;
	__u64 cgroup_id; /* 0 where the kernel cannot tell */
	__u64 socket_cookie;
	__u32 address[4]; /* the remote end; for DNS the resolver */
	__u32 pid;	  /* 0 where the kernel cannot tell */
	__u32 uid;	  /* 2^32 - 1 where the kernel cannot tell */
	__u32 rule;
	__u32 packet_len; /* bytes of the packet, from its IP header, that follow this structure */
	__u16 port;
	__u16 dns_offset; /* where in the packet the DNS message begins */
	__u16 reason;	  /* enum ram_reason */
	__u8 verdict;	  /* enum ram_verdict */
	__u8 hook;	  /* enum ram_hook */
	__u8 protocol;	  /* IANA protocol number */
	__u8 zero[7];
	char comm[RAM_COMM_LEN];
};

#endif
