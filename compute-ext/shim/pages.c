/*
 * pages.c: this process's connection to the pageserver.
 *
 * One connection a process, made when it first needs a page. While the pageserver is away a read waits for it, and can
 * be cancelled; every other answer that is not a page is an error. Bytes are encoded and decoded by ../src/pages.
 */
#include "cache.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* How long the pageserver may wait for the LSN asked for, before it says "Unavailable" and is asked again. */
#define SERVER_WAIT_MS		1000
/* Silence after which a connection is given up: the wait above, and a generous answer. */
#define ANSWER_TIMEOUT_MS	15000
#define CONNECT_TIMEOUT_MS	5000
#define BACKOFF_FIRST_MS	5
#define BACKOFF_LAST_MS		500
/* An unreachable pageserver is logged once, and then at this interval. */
#define COMPLAIN_EVERY_MS	30000
/* The janitor asks for nothing that has to wait. */
#define STATUS_TIMEOUT_MS	2000

#define FENCED_CODE 5			/* ErrorCode::Fenced of layout's wire */

typedef struct IronpageReply
{
	uint32		kind;
	uint32		code;
	uint64		request_id;
	uint64		term;
	uint64		lsn;
	uint64		disk_consistent_lsn;
	uint32		relation_blocks;
	uint32		slow_down;
	uint32		taken;
	uint32		retryable;
	char		message[512];
} IronpageReply;

enum
{
	REPLY_WELCOME = 1,
	REPLY_PAGE = 2,
	REPLY_INGEST = 3,
	REPLY_ERROR = 4
};

extern uint32 ironpage_rs_reply_bytes_max(void);
extern int	ironpage_rs_encode_hello(const uint8 *tenant, const uint8 *timeline, uint64 system_id, uint32 postgres_version,
									 uint64 term, uint8 *out, uint32 room);
extern int	ironpage_rs_encode_get_page(uint64 request_id, uint64 term, const IronpageKey *key, uint64 request_lsn,
										uint64 not_modified_since, uint32 wait_ms_max, uint8 *out, uint32 room);
extern int	ironpage_rs_encode_ingest_status(uint64 request_id, uint64 term, uint64 wait_for, uint32 wait_ms_max, uint8 *out,
											 uint32 room);
extern int	ironpage_rs_decode_reply(const uint8 *bytes, uint32 length, char *page, IronpageReply *reply);

static struct
{
	int			fd;				/* -1: not connected */
	bool		welcome;		/* hello answered */
	bool		busy;			/* an exchange was begun and not finished: an error left it in the middle */
	uint64		next_id;
	uint8	   *bytes;			/* received and not yet decoded */
	uint32		length;
	char		trouble[640];	/* why the last exchange failed */
} server = {.fd = -1, .next_id = 1};

static void
disconnect(void)
{
	if (server.fd >= 0)
	{
		close(server.fd);
		ReleaseExternalFD();
	}
	server.fd = -1;
	server.welcome = false;
	server.busy = false;
	server.length = 0;
}

static bool trouble(const char *format,...) pg_attribute_printf(1, 2);

/* Notes why, gives the connection up, and returns false. */
static bool
trouble(const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(server.trouble, sizeof(server.trouble), format, arguments);
	va_end(arguments);
	disconnect();
	return false;
}

/*
 * Where locks are held, CHECK_FOR_INTERRUPTS() does nothing. A read may fail there as it may for a bad disk, so a
 * waiting read can be cancelled all the same; only in a critical section must it go on.
 */
static void
check_interrupts(void)
{
	if (pg_atomic_read_u32(&ironpage_shared->fenced) != 0)
		_exit(2);
	if (CritSectionCount > 0)
		return;
	if (InterruptHoldoffCount == 0)
	{
		CHECK_FOR_INTERRUPTS();
		return;
	}
	if (ProcDiePending || QueryCancelPending)
	{
		QueryCancelPending = false;
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceled while waiting for a page of the pageserver at %s", ironpage_pageserver)));
	}
}

/* Waits for the socket, or for the time alone if `events` is 0. False if the time is over. */
static bool
wait_for(int events, long timeout_ms)
{
	int			happened;

	if (MyLatch == NULL)
		return false;
	happened = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT | events,
								 events ? server.fd : PGINVALID_SOCKET, Max(timeout_ms, 0), PG_WAIT_EXTENSION);
	if (happened & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		check_interrupts();
		return true;
	}
	return (happened & events) != 0;
}

static long
remaining_ms(TimestampTz deadline)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
}

static bool
send_all(const uint8 *bytes, uint32 length, TimestampTz deadline)
{
	while (length > 0)
	{
		ssize_t		sent = send(server.fd, bytes, length, MSG_NOSIGNAL);

		if (sent >= 0)
		{
			bytes += sent;
			length -= sent;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			return trouble("could not send: %s", strerror(errno));
		if (!wait_for(WL_SOCKET_WRITEABLE, remaining_ms(deadline)) && remaining_ms(deadline) <= 0)
			return trouble("it takes no request");
	}
	return true;
}

/* The reply to request `id`, or the answer to the hello if that is 0. Replies to abandoned requests are passed over. */
static bool
receive(uint64 id, char *page, IronpageReply *reply, TimestampTz deadline)
{
	for (;;)
	{
		int			result = ironpage_rs_decode_reply(server.bytes, server.length, page, reply);
		ssize_t		got;

		if (result == 0)
		{
			server.length -= reply->taken;
			memmove(server.bytes, server.bytes + reply->taken, server.length);
			if (reply->request_id == id || reply->kind == REPLY_WELCOME)
				return true;
			continue;
		}
		if (result == IRONPAGE_RS_MALFORMED)
			return trouble("%s", reply->message);
		if (result != IRONPAGE_RS_MISSING)
			return trouble("its reply could not be decoded");
		if (server.length == ironpage_rs_reply_bytes_max())
			return trouble("its reply is longer than any should be");

		got = recv(server.fd, server.bytes + server.length, ironpage_rs_reply_bytes_max() - server.length, 0);
		if (got > 0)
			server.length += got;
		else if (got == 0)
			return trouble("it closed the connection");
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			if (!wait_for(WL_SOCKET_READABLE, remaining_ms(deadline)) && remaining_ms(deadline) <= 0)
				return trouble("it gave no answer in time");
		}
		else if (errno != EINTR)
			return trouble("could not receive: %s", strerror(errno));
	}
}

/* A non-blocking connection under way to one address, or -1. */
static int
open_socket(const struct addrinfo *address)
{
	int			fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			on = 1;

	if (fd < 0)
		return -1;
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS)
	{
		int			saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static bool
start_connecting(void)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *addresses;
	char		host[256];
	const char *colon = strrchr(ironpage_pageserver, ':');
	size_t		length = colon ? (size_t) (colon - ironpage_pageserver) : 0;
	const char *start = ironpage_pageserver;
	int			result;

	/* [::1]:5000 */
	if (length >= 2 && start[0] == '[' && start[length - 1] == ']')
	{
		start++;
		length -= 2;
	}
	if (length == 0 || length >= sizeof(host))
		return trouble("ironpage.pageserver is not host:port");
	memcpy(host, start, length);
	host[length] = '\0';
	result = getaddrinfo(host, colon + 1, &hints, &addresses);
	if (result != 0)
		return trouble("could not find its address: %s", gai_strerror(result));

	ReserveExternalFD();
	for (struct addrinfo *each = addresses; each != NULL && server.fd < 0; each = each->ai_next)
		server.fd = open_socket(each);
	freeaddrinfo(addresses);
	if (server.fd < 0)
	{
		int			saved = errno;

		ReleaseExternalFD();
		return trouble("could not connect: %s", strerror(saved));
	}
	return true;
}

/* What a reply of any kind tells: a higher term ends this endpoint, unless it is nobody's primary. */
static void
heed_term(const IronpageReply *reply)
{
	if (!ironpage_ticket.read_only && reply->term > pg_atomic_read_u64(&ironpage_shared->term))
		ironpage_fence(reply->term, psprintf("pageserver %s", ironpage_pageserver));
}

static bool
say_hello(void)
{
	uint8		hello[256];
	IronpageReply reply = {0};
	PGAlignedBlock unused;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_TIMEOUT_MS);
	int			length;

	if (!start_connecting())
		return false;
	server.busy = true;
	length = ironpage_rs_encode_hello(ironpage_ticket.tenant, ironpage_ticket.timeline, ironpage_ticket.system_id, PG_VERSION_NUM,
									  pg_atomic_read_u64(&ironpage_shared->term), hello, sizeof(hello));
	if (length < 0)
		return trouble("the hello could not be encoded");

	/* A connection refused shows here: until it is established, send() says EAGAIN and the socket is not writable. */
	if (!send_all(hello, length, deadline) || !receive(0, unused.data, &reply, deadline))
		return false;
	heed_term(&reply);
	if (reply.kind != REPLY_WELCOME)
	{
		char		message[512];

		if (reply.kind != REPLY_ERROR)
			return trouble("its answer to the hello is none");
		strlcpy(message, reply.message, sizeof(message));
		if (!reply.retryable)
		{
			disconnect();
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("the pageserver at %s refused this endpoint: %s", ironpage_pageserver, message)));
		}
		return trouble("%s", message);
	}
	server.welcome = true;
	server.busy = false;
	return true;
}

/*
 * One request and its reply. False with server.trouble set, and no connection, if that did not work. An interrupt may
 * leave in the middle; the next exchange then starts with a new connection.
 */
static bool
exchange(uint64 id, const uint8 *request, int length, char *page, IronpageReply *reply, int timeout_ms)
{
	TimestampTz deadline;

	if (length < 0)
		return trouble("the request could not be encoded");
	if (server.bytes == NULL)
		server.bytes = MemoryContextAlloc(TopMemoryContext, ironpage_rs_reply_bytes_max());
	if (server.busy)
		disconnect();
	if (!server.welcome)
	{
		disconnect();
		if (!say_hello())
			return false;
	}
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	server.busy = true;
	if (!send_all(request, length, deadline) || !receive(id, page, reply, deadline))
		return false;
	server.busy = false;
	heed_term(reply);
	return true;
}

/* Waiting for a pageserver that is away or behind: log it once, and now and then again. */
typedef struct Patience
{
	long		pause_ms;
	TimestampTz since;
	TimestampTz complained;
} Patience;

static void
wait_for_better_times(Patience *patience, const IronpageKey *key, bool connected)
{
	TimestampTz now = GetCurrentTimestamp();

	if (patience->since == 0)
	{
		patience->since = now;
		patience->pause_ms = BACKOFF_FIRST_MS;
		/* A pageserver that is only behind answered after a while already; one that restarts is back soon. */
		patience->complained = TimestampTzPlusMilliseconds(now, 1000 - COMPLAIN_EVERY_MS);
	}
	if (TimestampDifferenceExceeds(patience->complained, now, COMPLAIN_EVERY_MS))
	{
		ereport(LOG,
				(errmsg("waiting for the pageserver at %s: %s", ironpage_pageserver, server.trouble),
				 errdetail("It was asked for block %u of relation %u/%u/%u fork %u, %ld ms ago.", key->block, key->tablespace,
						   key->database, key->relation, key->fork,
						   TimestampDifferenceMilliseconds(patience->since, now))));
		patience->complained = now;
	}
	if (!connected)
		ironpage_count(IPC_RECONNECTS);
	wait_for(0, patience->pause_ms);
	patience->pause_ms = Min(patience->pause_ms * 2, BACKOFF_LAST_MS);
	check_interrupts();
}

XLogRecPtr
ironpage_fetch(const IronpageKey *key, XLogRecPtr not_modified_since, char *page)
{
	Patience	patience = {0};
	PGAlignedBlock fetched;
	/* 0 asks for the newest. */
	XLogRecPtr	request_lsn = ironpage_ticket.read_only ? ironpage_ticket.start_lsn : InvalidXLogRecPtr;

	check_interrupts();
	for (;;)
	{
		uint8		request[256];
		IronpageReply reply = {0};
		uint64		id = server.next_id++;
		int			length = ironpage_rs_encode_get_page(id, pg_atomic_read_u64(&ironpage_shared->term), key, request_lsn,
														 not_modified_since, SERVER_WAIT_MS, request, sizeof(request));

		if (!exchange(id, request, length, fetched.data, &reply, ANSWER_TIMEOUT_MS))
		{
			wait_for_better_times(&patience, key, false);
			continue;
		}
		if (reply.kind == REPLY_PAGE && reply.lsn >= not_modified_since)
		{
			memcpy(page, fetched.data, BLCKSZ);
			ironpage_count(IPC_FETCHES);
			return reply.lsn;
		}
		if (reply.kind == REPLY_ERROR && reply.retryable)
		{
			strlcpy(server.trouble, reply.message, sizeof(server.trouble));
			wait_for_better_times(&patience, key, true);
			continue;
		}
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not read block %u of relation %u/%u/%u fork %u from the pageserver at %s: %s", key->block,
						key->tablespace, key->database, key->relation, key->fork, ironpage_pageserver,
						reply.kind == REPLY_ERROR ? reply.message :
						reply.kind == REPLY_PAGE ? "it sent an older state" : "it answered something else"),
				 ironpage_ticket.read_only
				 ? errdetail("It was asked for the state at %X/%X.", LSN_FORMAT_ARGS(request_lsn))
				 : errdetail("It was asked for its newest state, at least %X/%X.", LSN_FORMAT_ARGS(not_modified_since))));
	}
}

bool
ironpage_ask_ingest(XLogRecPtr *last_record_lsn, XLogRecPtr *disk_consistent_lsn)
{
	uint8		request[128];
	IronpageReply reply = {0};
	PGAlignedBlock unused;
	uint64		id = server.next_id++;
	int			length = ironpage_rs_encode_ingest_status(id, pg_atomic_read_u64(&ironpage_shared->term), 0, 0, request,
														  sizeof(request));

	if (!exchange(id, request, length, unused.data, &reply, STATUS_TIMEOUT_MS) || reply.kind != REPLY_INGEST)
		return false;
	*last_record_lsn = reply.lsn;
	*disk_consistent_lsn = reply.disk_consistent_lsn;
	return true;
}
