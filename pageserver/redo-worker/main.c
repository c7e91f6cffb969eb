/*
 * A WAL redo worker inside a stock PostgreSQL 15 binary.
 *
 * Preloaded (LD_PRELOAD) into an unmodified "postgres", it takes the place of main() and makes the
 * process a filter: a page and the WAL records for it go in, the server's own redo routines run, the
 * page comes out. It opens no data directory, no pg_control and no configuration file.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/bufmgr.h"
#include "storage/pg_sema.h"
#include "storage/pg_shmem.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/smgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "worker.h"

/* Address space of the "shared" memory; only pages that are touched count. */
#define SHARED_MEMORY_SIZE (16u << 20)
/* More than the XLR_MAX_BLOCK_ID + 1 pages one record may pin. */
#define BUFFERS 64
/* Exit codes; 0 is the end of the input. */
#define EXIT_BAD_REQUEST 2
#define EXIT_NO_MEMORY 3

/* CreateSharedMemoryAndSemaphores() (storage/ipc/ipci.c), of it what redo of a page reaches. */
static void
create_shared_memory(void)
{
    PGShmemHeader *header =
        mmap(NULL, SHARED_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (header == MAP_FAILED)
        elog(FATAL, "could not map the main segment: %m");
    header->totalsize = SHARED_MEMORY_SIZE;
    header->freeoffset = MAXALIGN(sizeof(PGShmemHeader));
    InitShmemAccess(header);
    DataDir = "/"; /* posix_sema.c stat()s it, only to seed a counter */
    PGReserveSemaphores(ProcGlobalSemas());
    InitShmemAllocation();
    CreateLWLocks();
    InitShmemIndex();
    XLOGShmemInit(); /* RecoveryInProgress() and DataChecksumsEnabled() look there */
    InitBufferPool();
    InitProcGlobal(); /* LWLocks and cleanup locks want a MyProc */
}

/* main() (main/main.c), then PostgresSingleUserMain() (tcop/postgres.c) and the startup process. */
static void
start_up(char **argv)
{
    setenv("LC_ALL", "C", 1); /* the locale settings would look for locale files */
    unsetenv("LD_PRELOAD");
    mallopt(M_MMAP_MAX, 0);                /* the sandbox has brk only... */
    mallopt(M_TRIM_THRESHOLD, 64 << 20);   /* ...and not one call per decompressed image */

    progname = "redo";
    MyProcPid = getpid();
    MemoryContextInit();
    InitStandaloneProcess(argv[0]);
    InitializeGUCOptions();
    if (atoi(GetConfigOption("server_version_num", false, false)) / 10000 != 15)
        elog(FATAL, "this redo worker is built for PostgreSQL 15, the server is %s",
             GetConfigOption("server_version", false, false));
    /* The default prefix has the time: a system call where there is no vDSO. */
    SetConfigOption("log_line_prefix", "redo worker [%p] ", PGC_POSTMASTER, PGC_S_ARGV);
    storage_install();

    NBuffers = BUFFERS;
    MaxConnections = 1;
    XLOGbuffers = 8; /* XLOGShmemSize() would resolve -1 from shared_buffers */
    InitializeMaxBackends();
    create_shared_memory();
    MyAuxProcType = StartupProcess;
    MyBackendType = B_STARTUP;
    InitAuxiliaryProcess();
    smgrinit();
    InitBufferPoolAccess();
    CreateAuxProcessResourceOwner(); /* buffer pins need an owner */
    InRecovery = true;               /* smgrnblocks() caches, UpdateMinRecoveryPoint() gives up */
    RmgrStartup();                   /* working contexts of btree, gin, gist, spgist */
    redo_init();
    PG_SETMASK(&UnBlockSig); /* InitStandaloneProcess() blocked even SIGTERM */
}

static void
write_all(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, length);

        if (written < 0 && errno != EINTR)
            _exit(0); /* the pageserver is gone */
        if (written > 0) {
            bytes += written;
            length -= written;
        }
    }
}

/* Answers requests until the input ends. */
static void
serve(void)
{
    static RedoReply reply;
    size_t capacity = 1 << 20;
    size_t filled = 0;
    char *buffer = malloc(capacity);

    if (buffer == NULL)
        _exit(EXIT_NO_MEMORY);
    for (;;) {
        const RedoRequest *request = (const RedoRequest *) buffer;
        uint32 length = filled < sizeof(RedoRequest) ? sizeof(RedoRequest) : request->length;

        if (length < sizeof(RedoRequest) || length > MAX_REQUEST || length % 8 != 0)
            _exit(EXIT_BAD_REQUEST); /* out of step: there is nothing sensible to answer */
        if (length > capacity) {
            capacity = length;
            buffer = realloc(buffer, capacity);
            if (buffer == NULL)
                _exit(EXIT_NO_MEMORY);
        } else if (filled < length) {
            ssize_t got = read(STDIN_FILENO, buffer + filled, capacity - filled);

            if (got == 0 || (got < 0 && errno != EINTR))
                _exit(0);
            filled += Max(got, 0);
        } else {
            if (request->op != OP_REDO && request->op != OP_PING)
                _exit(EXIT_BAD_REQUEST);
            redo_handle(request, &reply);
            write_all((const char *) &reply, sizeof(reply));
            filled -= length;
            memmove(buffer, buffer + length, filled); /* the next request may be here already */
        }
    }
}

static int
worker_main(int argc, char **argv, char **environment)
{
    start_up(argv);
    sandbox_enter();
    serve();
    return 0; /* not reached */
}

/* The start code of every program hands main() to this function of libc; ours is found first. */
typedef int (*main_function)(int, char **, char **);
typedef void (*void_function)(void);

extern int __libc_start_main(main_function theirs, int argc, char **argv, void_function init, void_function fini,
                             void_function rtld_fini, void *stack_end) __attribute__((visibility("default")));

int
__libc_start_main(main_function theirs, int argc, char **argv, void_function init, void_function fini,
                  void_function rtld_fini, void *stack_end)
{
    __typeof__(__libc_start_main) *real = dlsym(RTLD_NEXT, "__libc_start_main");

    return real(worker_main, argc, argv, init, fini, rtld_fini, stack_end);
}
