/*
 * Resolves fresh names and connects to each at once, again and again, in several threads.
 *
 *     race ask-tcp|ask-udp|ask-both|blind PORT RESOLVER FIRST COUNT THREADS
 *     race sink PORT
 *
 * The names are h<number>.race.test, from number FIRST on, and each has one address of its own: 10.128.0.0
 * and the number added up. ask-tcp opens a TCP connection, ask-udp sends a datagram by a connected socket,
 * ask-both does the one for even and the other for odd numbers. blind connects to the addresses without
 * having asked.
 *
 * Prints JSON: seconds, how often a query had to be sent again, and how many cycles ended with which errno:
 * 0 is success, ENODATA an answer that is not the name's address. sink accepts and receives all of it, until
 * it is killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define ERRORS 256
#define THREADS 64
#define TRIES 5
#define HEADER 12
#define KEPT 512

static const uint32_t base = 10u << 24 | 128u << 16;

static struct {
	int ask, tcp, udp;
	uint16_t port;
	struct sockaddr_in resolver;
	uint32_t first, count, threads;
} plan;

struct worker {
	pthread_t thread;
	uint32_t number;
	unsigned long outcomes[ERRORS], repeated;
};

static struct sockaddr_in endpoint(uint32_t address, uint16_t port)
{
	struct sockaddr_in result = {.sin_family = AF_INET, .sin_port = htons(port)};

	result.sin_addr.s_addr = htonl(address);
	return result;
}

static void be_patient(int number, int seconds)
{
	struct timeval patience = {.tv_sec = seconds};

	setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	/* Linux lets connect(2) take no longer than sending may. */
	setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

/* A query for the name of a number (RFC 1035 4.1); returns its length. */
static size_t make_query(unsigned char *message, uint32_t number)
{
	static const char rest[] = "\4race\4test\0\0\1\0\1"; /* and a NUL that does not count */
	size_t at = HEADER;

	memset(message, 0, HEADER);
	message[0] = number >> 8;
	message[1] = number;
	message[2] = 1; /* recursion is desired */
	message[5] = 1; /* question */
	message[at] = sprintf((char *)message + at + 1, "h%u", number);
	at += message[at] + 1;
	memcpy(message + at, rest, sizeof(rest) - 1);
	return at + sizeof(rest) - 1;
}

/* Asks for the address of a number's name; 0 or an errno. Each query has a socket, as with stub resolvers. */
static int ask(struct worker *worker, uint32_t number, uint32_t *address)
{
	unsigned char query[64], reply[512];
	size_t size = make_query(query, number);
	int by = socket(AF_INET, SOCK_DGRAM, 0), error = ETIMEDOUT, tries;
	ssize_t got = -1;

	be_patient(by, 1);
	if (connect(by, (struct sockaddr *)&plan.resolver, sizeof(plan.resolver))) {
		error = errno;
		goto out;
	}
	for (tries = 0; tries < TRIES && got < 0; tries++) {
		worker->repeated += tries > 0;
		if (send(by, query, size, 0) < 0) {
			error = errno;
			goto out;
		}
		got = recv(by, reply, sizeof(reply), 0);
		if (got < 0 && errno != EAGAIN) {
			error = errno;
			goto out;
		}
	}
	/* One answer, whose owner is a pointer and which ends with the address. */
	if (got >= 0) {
		error = ENODATA;
		if ((size_t)got >= size + 16 && !memcmp(reply, query, 2) && reply[7] == 1) {
			memcpy(address, reply + size + 12, 4);
			*address = ntohl(*address);
			error = *address == base + number ? 0 : ENODATA;
		}
	}
out:
	close(by);
	return error;
}

static int reach(uint32_t number, uint32_t address)
{
	int tcp = plan.tcp && (!plan.udp || number % 2 == 0);
	struct sockaddr_in remote = endpoint(address, plan.port);
	struct linger at_once = {.l_onoff = 1};
	int error = 0, by = socket(AF_INET, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);

	if (by < 0)
		return errno;
	be_patient(by, 3);
	/* A reset leaves no socket behind that waits. */
	setsockopt(by, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	if (connect(by, (struct sockaddr *)&remote, sizeof(remote)) || (!tcp && send(by, "x", 1, 0) < 0))
		error = errno;
	close(by);
	return error;
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	uint32_t i;

	for (i = worker->number; i < plan.count; i += plan.threads) {
		uint32_t number = plan.first + i, address = base + number;
		int error = plan.ask ? ask(worker, number, &address) : 0;

		/* At once: nothing may come between the answer and this. */
		if (!error)
			error = reach(number, address);
		worker->outcomes[error < ERRORS ? error : ERRORS - 1]++;
	}
	return NULL;
}

static int race(void)
{
	static struct worker workers[THREADS];
	unsigned long outcomes[ERRORS] = {}, repeated = 0;
	struct timespec begun, ended;
	const char *comma = "";
	uint32_t i, error;

	clock_gettime(CLOCK_MONOTONIC, &begun);
	for (i = 0; i < plan.threads; i++) {
		workers[i].number = i;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			return 1;
	}
	for (i = 0; i < plan.threads; i++) {
		pthread_join(workers[i].thread, NULL);
		repeated += workers[i].repeated;
		for (error = 0; error < ERRORS; error++)
			outcomes[error] += workers[i].outcomes[error];
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("{\"seconds\": %.6f, \"repeated\": %lu, \"outcomes\": {",
	       ended.tv_sec - begun.tv_sec + (ended.tv_nsec - begun.tv_nsec) * 1e-9, repeated);
	for (error = 0; error < ERRORS; error++) {
		if (!outcomes[error])
			continue;
		printf("%s\"%u\": %lu", comma, error, outcomes[error]);
		comma = ", ";
	}
	printf("}}\n");
	return 0;
}

static void *receive(void *argument)
{
	char data[64];

	for (;;)
		recv(*(int *)argument, data, sizeof(data), 0);
	return NULL;
}

static int sink(uint16_t port)
{
	struct sockaddr_in here = endpoint(INADDR_ANY, port);
	int stream = socket(AF_INET, SOCK_STREAM, 0), datagram = socket(AF_INET, SOCK_DGRAM, 0);
	int kept[KEPT] = {}, next = 0;
	pthread_t thread;

	if (bind(stream, (struct sockaddr *)&here, sizeof(here)) || listen(stream, 4096) ||
	    bind(datagram, (struct sockaddr *)&here, sizeof(here)) ||
	    pthread_create(&thread, NULL, receive, &datagram)) {
		perror("sink");
		return 1;
	}
	for (;;) {
		/* The client ends each connection; until it has, nothing may disturb it. */
		if (kept[next])
			close(kept[next]);
		kept[next] = accept(stream, NULL, NULL);
		next = (next + 1) % KEPT;
	}
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "sink"))
		return sink(atoi(words[2]));
	if (count != 7)
		return 2;
	plan.ask = strcmp(words[1], "blind") != 0;
	plan.tcp = strcmp(words[1], "ask-udp") != 0;
	plan.udp = strcmp(words[1], "ask-tcp") != 0;
	plan.port = atoi(words[2]);
	plan.resolver = endpoint(ntohl(inet_addr(words[3])), 53);
	plan.first = strtoul(words[4], NULL, 10);
	plan.count = strtoul(words[5], NULL, 10);
	plan.threads = strtoul(words[6], NULL, 10);
	if (!plan.threads || plan.threads > THREADS)
		return 2;
	return race();
}
