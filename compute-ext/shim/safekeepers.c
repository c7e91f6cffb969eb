/*
 * safekeepers.c: the walproposer's connections. Nothing here blocks, except the resolution of host names.
 */
#include "proposer.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#define SAFEKEEPERS_MAX 9
#define BACKOFF_MS_MIN 100
#define BACKOFF_MS_MAX 1000
#define CONNECT_MS_MAX 2000
#define COMPLAIN_EVERY_MS 30000

typedef enum
{
	SK_DOWN,
	SK_CONNECTING,
	SK_UP
} SafekeeperState;

typedef struct Safekeeper
{
	char		host[256];
	char		port[16];
	SafekeeperState state;
	int			fd;
	bool		greeted;		/* it told its state on this connection */
	uint64		since_ms;		/* when the connection was begun */
	uint32		attempts;		/* a name may have several addresses: each gets its turn */
	uint64		retry_at_ms;
	uint32		backoff_ms;
	uint64		complained_ms;	/* when a failed attempt was last logged */
	uint32		events;			/* as last given to the wait event set */
} Safekeeper;

static Safekeeper safekeepers[SAFEKEEPERS_MAX];
static uint32 safekeeper_count;

static WaitEventSet *wait_set;
static bool wait_set_stale = true;

uint32
ironpage_safekeepers_init(void)
{
	char	   *rest = pstrdup(ironpage_safekeepers);
	char	   *item;

	safekeeper_count = 0;
	for (item = strtok_r(rest, ", ", &rest); item != NULL; item = strtok_r(NULL, ", ", &rest))
	{
		char	   *colon = strrchr(item, ':');
		Safekeeper *sk = &safekeepers[safekeeper_count];
		size_t		host_length;

		if (safekeeper_count == SAFEKEEPERS_MAX)
			ereport(FATAL,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("ironpage.safekeepers names more than %d safekeepers", SAFEKEEPERS_MAX)));
		if (colon == NULL || colon == item || colon[1] == '\0' || strlen(colon + 1) >= sizeof(sk->port) ||
			colon - item >= (ptrdiff_t) sizeof(sk->host))
			ereport(FATAL,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("\"%s\" in ironpage.safekeepers is not host:port", item)));
		memset(sk, 0, sizeof(*sk));
		sk->fd = -1;
		sk->backoff_ms = BACKOFF_MS_MIN;
		host_length = colon - item;
		if (item[0] == '[' && colon[-1] == ']')
		{
			item++;
			host_length -= 2;
		}
		memcpy(sk->host, item, host_length);
		strcpy(sk->port, colon + 1);
		safekeeper_count++;
	}
	if (safekeeper_count == 0)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("ironpage.safekeepers is empty"),
				 errhint("Start the endpoint with the ironpage command; it fills in the addresses.")));
	return safekeeper_count;
}

static void
later(Safekeeper *sk, uint64 now_ms)
{
	sk->state = SK_DOWN;
	sk->greeted = false;
	sk->retry_at_ms = now_ms + sk->backoff_ms;
	sk->backoff_ms = Min(sk->backoff_ms * 2, BACKOFF_MS_MAX);
	if (sk->fd >= 0)
	{
		close(sk->fd);
		sk->fd = -1;
		wait_set_stale = true;
	}
	ironpage_count(IPC_RECONNECTS);
}

static void
complain(Safekeeper *sk, uint64 now_ms, const char *what)
{
	if (sk->complained_ms != 0 && now_ms - sk->complained_ms < COMPLAIN_EVERY_MS)
		return;
	sk->complained_ms = now_ms;
	ereport(LOG, (errmsg("could not connect to safekeeper at %s:%s: %s", sk->host, sk->port, what)));
}

static void
begin(Safekeeper *sk, uint64 now_ms)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	struct addrinfo *addresses,
			   *address;
	int			error = getaddrinfo(sk->host, sk->port, &hints, &addresses);
	int			on = 1;
	uint32		count = 0;

	if (error != 0)
	{
		complain(sk, now_ms, gai_strerror(error));
		later(sk, now_ms);
		return;
	}
	for (address = addresses; address != NULL; address = address->ai_next)
		count++;
	address = addresses;
	for (uint32 skip = sk->attempts++ % Max(count, 1); skip > 0; skip--)
		address = address->ai_next;
	sk->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sk->fd < 0 ||
		setsockopt(sk->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
		(connect(sk->fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS))
	{
		complain(sk, now_ms, strerror(errno));
		later(sk, now_ms);
	}
	else
	{
		sk->state = SK_CONNECTING;
		sk->since_ms = now_ms;
		wait_set_stale = true;
	}
	freeaddrinfo(addresses);
}

void
ironpage_safekeepers_connect(IronpageProposer *proposer, uint64 now_ms)
{
	for (uint32 i = 0; i < safekeeper_count; i++)
	{
		Safekeeper *sk = &safekeepers[i];

		if (sk->state == SK_DOWN && now_ms >= sk->retry_at_ms)
			begin(sk, now_ms);
		else if (sk->state != SK_DOWN && !sk->greeted && now_ms - sk->since_ms > CONNECT_MS_MAX)
		{
			complain(sk, now_ms, "it does not answer");
			ironpage_safekeepers_close(proposer, i, now_ms);
		}
	}
}

void
ironpage_safekeepers_close(IronpageProposer *proposer, uint32 member, uint64 now_ms)
{
	if (safekeepers[member].state != SK_DOWN)
		later(&safekeepers[member], now_ms);
	ironpage_proposer_check(ironpage_rs_proposer_disconnected(proposer, member));
}

static void
lost(IronpageProposer *proposer, uint32 member, uint64 now_ms, const char *why)
{
	Safekeeper *sk = &safekeepers[member];

	if (sk->greeted)
		ereport(LOG, (errmsg("lost the connection to safekeeper at %s:%s: %s", sk->host, sk->port, why)));
	else
		complain(sk, now_ms, why);
	ironpage_safekeepers_close(proposer, member, now_ms);
}

void
ironpage_safekeepers_send(IronpageProposer *proposer, uint64 now_ms)
{
	for (uint32 i = 0; i < safekeeper_count; i++)
	{
		while (safekeepers[i].state == SK_UP)
		{
			size_t		length;
			const uint8 *bytes = ironpage_rs_proposer_output(proposer, i, &length);
			ssize_t		sent;

			if (bytes == NULL)
				break;
			sent = send(safekeepers[i].fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
			if (sent >= 0)
				ironpage_proposer_check(ironpage_rs_proposer_sent(proposer, i, sent));
			else if (errno == EAGAIN || errno == EWOULDBLOCK)
				break;
			else if (errno != EINTR)
				lost(proposer, i, now_ms, strerror(errno));
		}
	}
}

static void
receive(IronpageProposer *proposer, uint32 member, uint64 now_ms)
{
	static uint8 bytes[64 * 1024];
	Safekeeper *sk = &safekeepers[member];

	/* One read a turn: whoever sends much must not keep the others waiting. */
	ssize_t		got = recv(sk->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got > 0)
	{
		int			status = ironpage_rs_proposer_received(proposer, member, bytes, got, now_ms);

		ironpage_proposer_check(status);
		if (status == 1)
		{
			sk->greeted = true;
			sk->backoff_ms = BACKOFF_MS_MIN;
			sk->complained_ms = 0;
		}
	}
	else if (got == 0)
		lost(proposer, member, now_ms, "it closed the connection");
	else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		lost(proposer, member, now_ms, strerror(errno));
}

static void
connected(IronpageProposer *proposer, uint32 member, uint64 now_ms)
{
	int			error = 0;
	socklen_t	size = sizeof(error);

	if (getsockopt(safekeepers[member].fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		error = errno;
	if (error != 0)
	{
		lost(proposer, member, now_ms, strerror(error));
		return;
	}
	safekeepers[member].state = SK_UP;
	ironpage_proposer_check(ironpage_rs_proposer_connected(proposer, member));
}

static uint32
wanted_events(IronpageProposer *proposer, uint32 member)
{
	size_t		length;

	if (safekeepers[member].state == SK_CONNECTING)
		return WL_SOCKET_WRITEABLE;
	if (ironpage_rs_proposer_output(proposer, member, &length) != NULL)
		return WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE;
	return WL_SOCKET_READABLE;
}

/* A set cannot lose a socket, so it is made anew when one is opened or closed. */
static void
update_wait_set(IronpageProposer *proposer)
{
	int			position = 2;

	if (wait_set_stale)
	{
		if (wait_set != NULL)
			FreeWaitEventSet(wait_set);
		wait_set = CreateWaitEventSet(TopMemoryContext, SAFEKEEPERS_MAX + 2);
		AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	}
	for (uint32 i = 0; i < safekeeper_count; i++)
	{
		Safekeeper *sk = &safekeepers[i];
		uint32		events;

		if (sk->state == SK_DOWN)
			continue;
		events = wanted_events(proposer, i);
		if (wait_set_stale)
			AddWaitEventToSet(wait_set, events, sk->fd, NULL, (void *) (uintptr_t) i);
		else if (events != sk->events)
			ModifyWaitEvent(wait_set, position, events, NULL);
		sk->events = events;
		position++;
	}
	wait_set_stale = false;
}

void
ironpage_safekeepers_wait(IronpageProposer *proposer, uint64 now_ms, uint64 until_ms)
{
	WaitEvent	happened[SAFEKEEPERS_MAX + 2];
	int			count;

	for (uint32 i = 0; i < safekeeper_count; i++)
		if (safekeepers[i].state == SK_DOWN)
			until_ms = Min(until_ms, safekeepers[i].retry_at_ms);

	update_wait_set(proposer);
	count = WaitEventSetWait(wait_set, until_ms > now_ms ? (long) (until_ms - now_ms) : 0, happened, lengthof(happened),
							 PG_WAIT_EXTENSION);
	now_ms = ironpage_now_us() / 1000;
	for (int i = 0; i < count; i++)
	{
		uint32		member = (uint32) (uintptr_t) happened[i].user_data;

		if (happened[i].events & (WL_LATCH_SET | WL_POSTMASTER_DEATH))
			continue;
		if (safekeepers[member].state == SK_CONNECTING)
			connected(proposer, member, now_ms);
		else if (safekeepers[member].state == SK_UP && (happened[i].events & WL_SOCKET_READABLE))
			receive(proposer, member, now_ms);
	}
}
