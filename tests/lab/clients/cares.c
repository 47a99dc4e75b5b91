/*
 * As connect.c, with c-ares as the resolver, which Node.js and Envoy have:
 *
 *     cares PORT SIZE NAME...
 *
 * SIZE is the largest datagram that the server is told to send (EDNS), 0 for queries without EDNS.
 */
#include <ares.h>
#include <stdlib.h>
#include <sys/select.h>
#include "attempt.h"

static int failed;

static void on_answer(void *argument, int status, int timeouts, struct ares_addrinfo *found)
{
	(void)argument;
	(void)timeouts;
	if (status != ARES_SUCCESS) {
		printf("! %s\n", ares_strerror(status));
		failed = 1;
		return;
	}
	for (struct ares_addrinfo_node *node = found->nodes; node; node = node->ai_next)
		failed |= attempt(node->ai_addr, node->ai_addrlen);
	ares_freeaddrinfo(found);
}

static void wait_for_answer(ares_channel channel)
{
	for (;;) {
		fd_set reading, writing;
		struct timeval patience;
		int limit;

		FD_ZERO(&reading);
		FD_ZERO(&writing);
		limit = ares_fds(channel, &reading, &writing);
		if (limit == 0)
			return;
		select(limit, &reading, &writing, NULL, ares_timeout(channel, NULL, &patience));
		ares_process(channel, &reading, &writing);
	}
}

int main(int count, char **words)
{
	struct ares_options options = {.timeout = 2000, .tries = 2};
	int chosen = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES;
	ares_channel channel;

	if (count < 3)
		return 2;
	options.ednspsz = atoi(words[2]);
	if (options.ednspsz) {
		options.flags = ARES_FLAG_EDNS;
		chosen |= ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ;
	}
	if (ares_library_init(ARES_LIB_INIT_ALL) || ares_init_options(&channel, &options, chosen))
		return 2;
	for (int i = 3; i < count; i++) {
		struct ares_addrinfo_hints hints = {.ai_socktype = SOCK_STREAM};

		ares_getaddrinfo(channel, words[i], words[1], &hints, on_answer, NULL);
		wait_for_answer(channel);
	}
	ares_destroy(channel);
	ares_library_cleanup();
	return failed;
}
