/*
 * WAL is input of doubtful quality to code that trusts it. Before the first byte of it is read, the
 * process gives up its privileges, its files, memory beyond a cap, and all system calls but the few
 * that reading, computing and answering take.
 */
#include "postgres.h"

#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker.h"

/* Address space in all, of which the binary and its libraries take about 90 MiB. A record that
 * wants more gets an "out of memory" ERROR. */
#define ADDRESS_SPACE_MAX (512ul << 20)

/* "nobody" and "nogroup" of every distribution that follows the kernel's overflow ids. */
#define UNPRIVILEGED_ID 65534

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the system call filter knows x86-64 and aarch64"
#endif

#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ON(call, action) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), RETURN(action)

static void
drop_privileges(void)
{
    if (geteuid() != 0)
        return;
    if (setgroups(0, NULL) != 0 || setgid(UNPRIVILEGED_ID) != 0 || setuid(UNPRIVILEGED_ID) != 0)
        elog(FATAL, "could not give up root's privileges: %m");
    /* A change of user undoes it: a worker that loops must not outlive the pageserver. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        elog(FATAL, "could not tie the process to its parent: %m");
}

static void
limit(int resource, rlim_t most)
{
    struct rlimit limit = {most, most};

    if (setrlimit(resource, &limit) != 0)
        elog(FATAL, "could not set resource limit %d: %m", resource);
}

static void
filter_system_calls(void)
{
    struct sock_filter code[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        ON(SYS_read, SECCOMP_RET_ALLOW),
        ON(SYS_write, SECCOMP_RET_ALLOW),
        ON(SYS_futex, SECCOMP_RET_ALLOW),
        ON(SYS_brk, SECCOMP_RET_ALLOW),
        ON(SYS_getpid, SECCOMP_RET_ALLOW),
        ON(SYS_exit_group, SECCOMP_RET_ALLOW),
        /* malloc's last resort once brk fails: let it be "out of memory". */
        ON(SYS_mmap, SECCOMP_RET_ERRNO | ENOMEM),
        RETURN(SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {lengthof(code), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        elog(FATAL, "could not install the system call filter: %m");
}

void
sandbox_enter(void)
{
    drop_privileges();
    limit(RLIMIT_CORE, 0); /* it would hold pages of the user's */
    limit(RLIMIT_AS, ADDRESS_SPACE_MAX);
    /* latch.c left an epoll and a signal descriptor; nothing here waits on a latch. */
    if (syscall(SYS_close_range, 3, ~0U, 0) != 0)
        elog(FATAL, "could not close inherited files: %m");
    filter_system_calls();
}
