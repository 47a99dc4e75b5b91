/* Connects to an address and prints "ADDRESS ERRNO", with 0 for success; tells whether it failed. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int attempt(const struct sockaddr *address, socklen_t size)
{
	struct timeval patience = {.tv_sec = 20};
	int error = 0, number = socket(address->sa_family, SOCK_STREAM, 0);
	char text[64] = "?";

	/* Linux lets connect(2) take no longer than sending may. */
	setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	/* At once: nothing may come between the answer and this. */
	if (connect(number, address, size))
		error = errno;
	close(number);
	getnameinfo(address, size, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
	printf("%s %d\n", text, error);
	return error != 0;
}
