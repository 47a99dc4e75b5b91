/*
 * Resolves names with getaddrinfo(3) and connects to every address of each, in the order given.
 *
 *     connect PORT NAME...
 *
 * Prints a line "ADDRESS ERRNO" for each address, 0 for success, or "! REASON" for a name that has none.
 * It is built with the C library whose resolver is to be tested.
 */
#include "attempt.h"

int main(int count, char **words)
{
	int failed = 0;

	for (int i = 2; i < count; i++) {
		struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
		int problem = getaddrinfo(words[i], words[1], &hints, &found);

		if (problem) {
			printf("! %s\n", gai_strerror(problem));
			failed = 1;
			continue;
		}
		for (struct addrinfo *info = found; info; info = info->ai_next)
			failed |= attempt(info->ai_addr, info->ai_addrlen);
		freeaddrinfo(found);
	}
	return failed;
}
