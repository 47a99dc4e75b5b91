/*
 * Sends small datagrams as fast as it can.
 *
 *     sender connected|unconnected ADDRESS COUNT PORT SECONDS
 *     sender hole PORT
 *
 * connected: all to ADDRESS, by a connected socket. unconnected: to ADDRESS and those behind it, COUNT in
 * all, in turn. Prints JSON: packets sent, seconds, and errors. Seconds are those of CPU time, which other
 * programs cannot take away. hole opens a port and never reads from it, so that what arrives is dropped at
 * little cost and without a complaint, until it is killed.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 256 /* packets between looks at the clock */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

static int hole(int by, struct sockaddr_in *here)
{
	int room = 1; /* as little as there can be */

	setsockopt(by, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (bind(by, (struct sockaddr *)here, sizeof(*here)))
		return 1;
	for (;;)
		pause();
}

int main(int count, char **words)
{
	struct sockaddr_in remote = {.sin_family = AF_INET};
	struct sockaddr *to = (struct sockaddr *)&remote;
	int by = socket(AF_INET, SOCK_DGRAM, 0), connected, i;
	unsigned long sent = 0, errors = 0;
	double begun, seconds, ended;
	unsigned addresses, first;
	char data[64] = {};

	if (count == 3 && !strcmp(words[1], "hole")) {
		remote.sin_port = htons(atoi(words[2]));
		return hole(by, &remote);
	}
	if (count != 6)
		return 2;
	connected = !strcmp(words[1], "connected");
	first = ntohl(inet_addr(words[2]));
	addresses = atoi(words[3]);
	remote.sin_addr.s_addr = htonl(first);
	remote.sin_port = htons(atoi(words[4]));
	seconds = atof(words[5]);
	if (connected && connect(by, to, sizeof(remote)))
		return 1;
	begun = now();
	do {
		for (i = 0; i < BATCH; i++, sent++) {
			if (connected) {
				errors += send(by, data, sizeof(data), 0) < 0;
				continue;
			}
			remote.sin_addr.s_addr = htonl(first + sent % addresses);
			errors += sendto(by, data, sizeof(data), 0, to, sizeof(remote)) < 0;
		}
		ended = now();
	} while (ended - begun < seconds);
	printf("{\"packets\": %lu, \"seconds\": %.6f, \"errors\": %lu}\n", sent, ended - begun, errors);
	return 0;
}
