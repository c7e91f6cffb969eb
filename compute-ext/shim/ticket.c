/*
 * ticket.c: the launch ticket, "ironpage.launch" in the data directory.
 *
 * The launcher writes it after it took the base backup, for a primary in the term it won before; the postmaster reads it
 * once and removes it. A data directory without one is never started: with fsync=off its crash recovery could make other
 * WAL under a term that already has some.
 */
#include "ironpage.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "storage/fd.h"

#define TICKET_FILE "ironpage.launch"

IronpageTicket ironpage_ticket;

static void malformed(const char *key) pg_attribute_noreturn();

static void
malformed(const char *key)
{
	ereport(FATAL,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("\"%s\" has no valid value of \"%s\"", TICKET_FILE, key),
			 errhint("Start the endpoint with the ironpage command: it makes a new data directory.")));
}

/* The value of `key` in text lines of key=value, or FATAL. `text` is cut into strings at its line ends. */
static const char *
value_of(const char *text, size_t length, const char *key)
{
	size_t		key_length = strlen(key);
	const char *line = text;

	while (line < text + length)
	{
		if (strncmp(line, key, key_length) == 0 && line[key_length] == '=')
			return line + key_length + 1;
		line += strlen(line) + 1;
	}
	malformed(key);
}

static bool
read_only_of(const char *text, size_t length)
{
	const char *value = value_of(text, length, "mode");

	if (strcmp(value, "read-only") == 0)
		return true;
	if (strcmp(value, "primary") != 0)
		malformed("mode");
	return false;
}

static uint64
number_of(const char *text, size_t length, const char *key)
{
	const char *value = value_of(text, length, key);
	char	   *end;
	uint64		number;

	errno = 0;
	number = strtou64(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0')
		malformed(key);
	return number;
}

static void
id_of(const char *text, size_t length, const char *key, uint8 *id)
{
	const char *value = value_of(text, length, key);

	if (strlen(value) != 2 * IRONPAGE_ID_SIZE || strspn(value, "0123456789abcdefABCDEF") != 2 * IRONPAGE_ID_SIZE)
		malformed(key);
	for (int i = 0; i < IRONPAGE_ID_SIZE; i++)
	{
		unsigned int byte;

		if (sscanf(value + 2 * i, "%2x", &byte) != 1)
			malformed(key);
		id[i] = (uint8) byte;
	}
}

static XLogRecPtr
lsn_of(const char *text, size_t length, const char *key)
{
	const char *value = value_of(text, length, key);
	uint32		high,
				low;
	int			taken = 0;

	if (sscanf(value, "%X/%X%n", &high, &low, &taken) != 2 || value[taken] != '\0')
		malformed(key);
	return ((uint64) high << 32) | low;
}

/* Durable before the first byte of WAL: fsync(2) itself, since pg_fsync does nothing under fsync=off. */
static void
remove_durably(void)
{
	int			directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (directory < 0 || unlink(TICKET_FILE) != 0 || fsync(directory) != 0)
		ereport(FATAL, (errcode_for_file_access(), errmsg("could not remove \"%s\" durably: %m", TICKET_FILE)));
	close(directory);
}

void
ironpage_ticket_consume(void)
{
	/* A history of the 65,536 terms that the wire allows, 48 bytes each at most, and some lines. */
	static char text[4 * 1024 * 1024];
	int			fd = open(TICKET_FILE, O_RDONLY | O_CLOEXEC);
	ssize_t		length;

	if (fd < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not open \"%s\": %m", TICKET_FILE),
				 errdetail("A data directory of an endpoint is started once; what it held is in the pageserver."),
				 errhint("Start the endpoint with the ironpage command: it makes a new data directory.")));
	length = read(fd, text, sizeof(text) - 1);
	if (length < 0)
		ereport(FATAL, (errcode_for_file_access(), errmsg("could not read \"%s\": %m", TICKET_FILE)));
	close(fd);
	if (length == sizeof(text) - 1)
		malformed("history");

	text[length] = '\0';
	for (ssize_t i = 0; i < length; i++)
		if (text[i] == '\n' || text[i] == '\r')
			text[i] = '\0';

	ironpage_ticket.read_only = read_only_of(text, length);
	ironpage_ticket.term = number_of(text, length, "term");
	ironpage_ticket.start_lsn = lsn_of(text, length, "start_lsn");
	id_of(text, length, "tenant", ironpage_ticket.tenant);
	id_of(text, length, "timeline", ironpage_ticket.timeline);
	ironpage_ticket.system_id = number_of(text, length, "system_id");
	if (!ironpage_ticket.read_only)
	{
		ironpage_ticket.history = strdup(value_of(text, length, "history"));
		if (ironpage_ticket.history == NULL || ironpage_ticket.history[0] == '\0')
			malformed("history");
	}
	if ((ironpage_ticket.term == 0) != ironpage_ticket.read_only)
		malformed("term");
	if (ironpage_ticket.start_lsn == InvalidXLogRecPtr)
		malformed("start_lsn");
	if (ironpage_ticket.system_id != GetSystemIdentifier())
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("\"%s\" is for system identifier " UINT64_FORMAT ", pg_control has " UINT64_FORMAT, TICKET_FILE,
						ironpage_ticket.system_id, GetSystemIdentifier())));
	if (ironpage_ticket.read_only)
		ironpage_readonly_check();
	remove_durably();
}
