/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first request of HTTP/1.1 in clear text (RFC 9112), as far as its Host. A target with a name of its own
 * (absolute-form, 3.2.2) is judged as well, since servers differ in which they believe. What servers differ
 * in otherwise is refused: white space in and in front of field names, line ends of CR alone. The preface of
 * HTTP/2 (RFC 9113 3.4) is no request.
 *
 * A proxy is asked by CONNECT (RFC 9110 9.3.6), whose target has the name and the port. Its fields say
 * nothing more. What is behind them goes through the tunnel and is read as if a connection began there;
 * unless the proxy wants to know first who asks: then it is the next CONNECT.
 *
 * One byte a step. Whatever a step leaves for the next is in memory, where the verifier does not follow it.
 */
#ifndef RAM_HTTP_H
#define RAM_HTTP_H

#include "lib/hostname.h"

#define RAM_HTTP_VERSION 0x485454502f312eULL /* "HTTP/1." */
#define RAM_HTTP_SCHEME 0x687474703a2f2fULL  /* "http://" */
#define RAM_HTTP_HOST 0x686f7374	     /* "host" */
#define RAM_HTTP_CONNECT 0x434f4e4e454354ULL /* "CONNECT" */

/* Where the next byte stands. */
enum ram_request_part {
	RAM_REQUEST_METHOD,
	RAM_REQUEST_TARGET, /* its first byte */
	RAM_REQUEST_PATH,
	RAM_REQUEST_SCHEME,
	RAM_REQUEST_CONNECT, /* the name in the target of CONNECT */
	RAM_REQUEST_CONNECT_PORT,
	RAM_REQUEST_AUTHORITY, /* the name in a URI */
	RAM_REQUEST_AUTHORITY_PORT,
	RAM_REQUEST_VERSION,
	RAM_REQUEST_LINE_END, /* behind CR */
	RAM_REQUEST_FIELD,    /* its name */
	RAM_REQUEST_VALUE,
	RAM_REQUEST_BEFORE_HOST,
	RAM_REQUEST_HOST,
	RAM_REQUEST_HOST_PORT,
	RAM_REQUEST_HEAD_END, /* behind the CR of the empty line */
};

static __always_inline u32 ram_turn_to(struct ram_beginning *draft, u32 part)
{
	draft->part = part;
	draft->gathered = 0;
	draft->need = 0; /* how many were gathered */
	return RAM_READ_ON;
}

static __always_inline void ram_gather(struct ram_beginning *draft, u64 byte)
{
	draft->gathered = draft->gathered << 8 | byte;
	draft->need += 1;
}

static __always_inline bool ram_is_token(u64 byte)
{
	return (byte >= 'A' && byte <= 'Z') || byte == '-';
}

/* The fields of CONNECT are over: what follows goes through the tunnel. */
static __always_inline u32 ram_enter_tunnel(struct ram_beginning *draft)
{
	draft->connects = 0;
	draft->inner = draft->at;
	draft->record_left = 0;
	draft->skip = 0;
	ram_turn_to(draft, RAM_REQUEST_METHOD); /* RAM_HELLO_NEW, should it be TLS */
	return draft->at < draft->held ? RAM_READ_ANEW : RAM_READ_MORE;
}

/* The name ends in front of this byte. */
static __always_inline u32 ram_end_host(struct ram_beginning *draft)
{
	draft->name_length = draft->at - 1 - draft->name_at;
	return draft->name_length == 0 || draft->name_length > RAM_HOST_NAME_MAX ? RAM_READ_STRANGE
										 : RAM_READ_ON;
}

static __always_inline u32 ram_step_target(struct ram_beginning *draft, u64 byte)
{
	switch (draft->part) {
	case RAM_REQUEST_METHOD:
		if (byte == ' ') {
			if (draft->gathered != RAM_HTTP_CONNECT)
				return ram_turn_to(draft, RAM_REQUEST_TARGET);
			draft->connects = 1;
			draft->name_at = draft->at;
			return ram_turn_to(draft, RAM_REQUEST_CONNECT);
		}
		ram_gather(draft, byte);
		return ram_is_token(byte) ? RAM_READ_ON : RAM_READ_STRANGE;
	case RAM_REQUEST_TARGET:
		ram_turn_to(draft, byte == '/' || byte == '*' ? RAM_REQUEST_PATH : RAM_REQUEST_SCHEME);
		ram_gather(draft, byte | 0x20);
		return byte == ' ' ? RAM_READ_STRANGE : RAM_READ_ON;
	case RAM_REQUEST_PATH:
		if (byte == ' ')
			return ram_turn_to(draft, RAM_REQUEST_VERSION);
		return byte < ' ' ? RAM_READ_STRANGE : RAM_READ_ON;
	case RAM_REQUEST_SCHEME:
		/* ':' and '/' have this bit. */
		ram_gather(draft, byte | 0x20);
		if (draft->need < 7)
			return RAM_READ_ON;
		draft->name_at = draft->at;
		return draft->gathered == RAM_HTTP_SCHEME ? ram_turn_to(draft, RAM_REQUEST_AUTHORITY)
							  : RAM_READ_STRANGE;
	case RAM_REQUEST_CONNECT:
		if (byte != ':')
			return byte > ' ' ? RAM_READ_ON : RAM_READ_STRANGE;
		if (ram_end_host(draft) != RAM_READ_ON)
			return RAM_READ_STRANGE;
		return ram_turn_to(draft, RAM_REQUEST_CONNECT_PORT);
	case RAM_REQUEST_CONNECT_PORT:
		if (byte >= '0' && byte <= '9') {
			draft->gathered = draft->gathered * 10 + byte - '0';
			draft->need += 1;
			return draft->need > 5 ? RAM_READ_STRANGE : RAM_READ_ON;
		}
		if (byte != ' ' || draft->gathered == 0 || draft->gathered > 0xffff)
			return RAM_READ_STRANGE;
		draft->tunnel_port = draft->gathered;
		ram_turn_to(draft, RAM_REQUEST_VERSION);
		return RAM_READ_NAME;
	case RAM_REQUEST_AUTHORITY:
		if (byte != '/' && byte != ':' && byte != '?' && byte > ' ')
			return RAM_READ_ON;
		if (ram_end_host(draft) != RAM_READ_ON || byte <= ' ')
			return RAM_READ_STRANGE;
		ram_turn_to(draft, byte == ':' ? RAM_REQUEST_AUTHORITY_PORT : RAM_REQUEST_PATH);
		return byte == ':' ? RAM_READ_ON : RAM_READ_NAME;
	default: /* RAM_REQUEST_AUTHORITY_PORT */
		if (byte >= '0' && byte <= '9')
			return RAM_READ_ON;
		ram_turn_to(draft, RAM_REQUEST_PATH);
		return byte == '/' || byte == '?' ? RAM_READ_NAME : RAM_READ_STRANGE;
	}
}

static __always_inline u32 ram_step_field(struct ram_beginning *draft, u64 byte)
{
	bool line_end = byte == '\r' || byte == '\n';
	u32 next = byte == '\r' ? RAM_REQUEST_LINE_END : RAM_REQUEST_FIELD;

	switch (draft->part) {
	case RAM_REQUEST_VERSION:
		if (!line_end) {
			ram_gather(draft, byte);
			return draft->need > 8 ? RAM_READ_STRANGE : RAM_READ_ON;
		}
		if (draft->need != 8 || draft->gathered >> 8 != RAM_HTTP_VERSION)
			return RAM_READ_STRANGE;
		return ram_turn_to(draft, next);
	case RAM_REQUEST_LINE_END:
		return byte == '\n' ? ram_turn_to(draft, RAM_REQUEST_FIELD) : RAM_READ_STRANGE;
	case RAM_REQUEST_FIELD:
		if (byte == ':')
			return ram_turn_to(draft, draft->need == 4 && draft->gathered == RAM_HTTP_HOST &&
								  !draft->connects
							  ? RAM_REQUEST_BEFORE_HOST
							  : RAM_REQUEST_VALUE);
		/* White space, or the end of all fields. */
		if (byte <= ' ') {
			if (!draft->connects || draft->need || !line_end)
				return RAM_READ_STRANGE;
			return byte == '\n' ? ram_enter_tunnel(draft)
					    : ram_turn_to(draft, RAM_REQUEST_HEAD_END);
		}
		ram_gather(draft, byte | 0x20);
		return RAM_READ_ON;
	case RAM_REQUEST_VALUE:
		return line_end ? ram_turn_to(draft, next) : RAM_READ_ON;
	case RAM_REQUEST_BEFORE_HOST:
		if (byte == ' ' || byte == '\t')
			return RAM_READ_ON;
		draft->name_at = draft->at - 1;
		ram_turn_to(draft, RAM_REQUEST_HOST);
		return byte <= ' ' || byte == ':' ? RAM_READ_STRANGE : RAM_READ_ON;
	case RAM_REQUEST_HOST:
		if (byte != ':' && byte > ' ')
			return RAM_READ_ON;
		if (ram_end_host(draft) != RAM_READ_ON)
			return RAM_READ_STRANGE;
		if (byte == ':')
			return ram_turn_to(draft, RAM_REQUEST_HOST_PORT);
		return line_end ? RAM_READ_NAME : RAM_READ_STRANGE;
	case RAM_REQUEST_HOST_PORT:
		if (byte >= '0' && byte <= '9')
			return RAM_READ_ON;
		return line_end ? RAM_READ_NAME : RAM_READ_STRANGE;
	default: /* RAM_REQUEST_HEAD_END */
		return byte == '\n' ? ram_enter_tunnel(draft) : RAM_READ_STRANGE;
	}
}

/* One step. RAM_READ_ON, or what all has come to. */
static __always_inline u32 ram_step_request(struct ram_beginning *draft)
{
	u64 byte;

	if (draft->at >= draft->held)
		return RAM_READ_MORE;
	byte = ram_word_at(draft, draft->at) >> 56;
	draft->at += 1;
	return draft->part <= RAM_REQUEST_AUTHORITY_PORT ? ram_step_target(draft, byte)
							 : ram_step_field(draft, byte);
}

/* Whether the name that was read last is the target's, and what is behind it is still to be read. */
static __always_inline bool ram_is_of_target(const struct ram_beginning *draft)
{
	return draft->part == RAM_REQUEST_PATH || draft->connects;
}

#endif
