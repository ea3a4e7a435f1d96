// SPDX-License-Identifier: Apache-2.0
//
// How it works. What is not on the engine's list has the kernel send SIGSYS to the thread that made
// the call (SCMP_ACT_TRAP), which costs nothing as long as it does not happen. The handler counts,
// marks the number, and has the call return -ENOSYS. The control thread tells the log later, since
// a handler of a signal may not. No thread of the engine blocks SIGSYS, as the kernel would end the
// process instead; but one of liburcu does, which resizes tables, and calls only for memory.
//
// Which calls are allowed whatever their arguments the kernel notes in a bitmap beside the program
// (Linux 5.11), so that only calls with arguments that are looked at run the program. ioctl() is
// not among those: it is what fills a page, and each filter above, the service manager's too, would
// run for each page.
//
// With FAULTLINE_POINTS, FAULTLINE_UNLISTED=FILE is for tests: each call that is refused is a line
// there and in the log at once.
#include "engine/base/call_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/base/call_lists.h"
#include "engine/base/log.h"

enum { CALLS = 1024, WORD = 64, UNLISTED_PATH = 512 };

static struct {
    atomic_ullong count;
    atomic_ullong seen[CALLS / WORD]; // numbers that were refused
    unsigned long long told_count;    // of those that the log has been told
    unsigned long long told[CALLS / WORD];
    char unlisted[UNLISTED_PATH]; // "": no file
} refused;

// --- what is refused ---

static void set_result(ucontext_t *context, long result)
{
#if defined(__x86_64__)
    context->uc_mcontext.gregs[REG_RAX] = result;
#elif defined(__aarch64__)
    context->uc_mcontext.regs[0] = (unsigned long long)result;
#else
#error "which register has the result of a system call?"
#endif
}

#ifdef FAULTLINE_POINTS
static void write_all(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        abort(); // a test would not see what it is for
}

// snprintf() does no more with these formats than a handler of a signal may.
static void note_for_tests(int number)
{
    char line[128];
    int error = errno;
    if (!*refused.unlisted)
        return;
    snprintf(line, sizeof(line), "event=call_unlisted number=%d pid=%d\n", number, (int)getpid());
    write_all(STDERR_FILENO, line);
    int fd = open(refused.unlisted, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) {
        write_all(fd, line);
        close(fd);
    }
    errno = error;
}

static void prepare_for_tests(void)
{
    const char *path = getenv("FAULTLINE_UNLISTED");
    snprintf(refused.unlisted, sizeof(refused.unlisted), "%s", path ? path : "");
}
#else
static void note_for_tests(int number)
{
    (void)number;
}

static void prepare_for_tests(void)
{
}
#endif

static void on_refused(int signal_number, siginfo_t *info, void *context)
{
    enum { SECCOMP = 1 }; // SYS_SECCOMP of <asm-generic/siginfo.h>, which <signal.h> lacks
    if (info->si_code != SECCOMP) { // some process has sent it: as if there were no handler
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    unsigned number = (unsigned)info->si_syscall % CALLS;
    atomic_fetch_or(&refused.seen[number / WORD], 1ULL << number % WORD);
    atomic_fetch_add(&refused.count, 1);
    note_for_tests(info->si_syscall);
    set_result(context, -ENOSYS);
}

static int catch_refused(void)
{
    struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigemptyset(&action.sa_mask);
    prepare_for_tests();
    return sigaction(SIGSYS, &action, NULL) == 0 ? 0 : -errno;
}

uint64_t fl_call_filter_refused(void)
{
    return atomic_load(&refused.count);
}

static void tell(unsigned number)
{
    char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)number);
    fl_log(FL_LOG_ERROR,
           "event=call_refused call=%s number=%u reason=\"it is not on the list of the engine's "
           "system calls: please report it; 'serve --seccomp log' refuses none\"",
           name ? name : "unknown", number);
    free(name);
}

void fl_call_filter_tell(void)
{
    unsigned long long count = atomic_load(&refused.count);
    if (count == refused.told_count)
        return;
    refused.told_count = count;
    for (unsigned word = 0; word < CALLS / WORD; word++) {
        unsigned long long news = atomic_load(&refused.seen[word]) & ~refused.told[word];
        refused.told[word] |= news;
        for (; news; news &= news - 1)
            tell(word * WORD + (unsigned)__builtin_ctzll(news));
    }
}

// --- rules ---

struct build {
    scmp_filter_ctx filter;
    enum fl_call_filter_mode mode;
    uint32_t otherwise; // what becomes of a call that no rule is about
    int error;          // the first
};

// Of what is to be done with the call: nothing but a line of the kernel's log in mode LOG.
static uint32_t answer(const struct build *build, uint32_t action)
{
    return build->mode == FL_CALL_FILTER_LOG ? SCMP_ACT_LOG : action;
}

// A call that this architecture has not, or that libseccomp does not know, needs no rule; and a
// rule that says what holds without it is refused.
static void add(struct build *build, uint32_t action, const char *name, unsigned conditions,
                const struct scmp_arg_cmp *condition)
{
    int number = seccomp_syscall_resolve_name(name);
    if (build->error || number < 0 || action == build->otherwise)
        return;
    build->error = seccomp_rule_add_array(build->filter, action, number, conditions, condition);
}

static void add_all(struct build *build, uint32_t action, const char *const *names)
{
    for (; *names; names++)
        add(build, action, *names, 0, NULL);
}

static bool is_in(const char *name, const char *const *names)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

// All others that libseccomp knows.
static void add_keeper(struct build *build, bool mounts)
{
    static const char *const to_mount[] = {"mount", "umount2", NULL};
    for (int number = 0; number < CALLS; number++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
        if (name && (!is_in(name, fl_calls_of_administration) || (mounts && is_in(name, to_mount))))
            add(build, SCMP_ACT_ALLOW, name, 0, NULL);
        free(name);
    }
    for (const char *const *name = fl_calls_of_administration; *name; name++) {
        if (!mounts || !is_in(*name, to_mount))
            add(build, answer(build, SCMP_ACT_ERRNO(EPERM)), *name, 0, NULL);
    }
}

static void add_engine(struct build *build, bool internet)
{
    // A thread of its own, and no process. What clone3() is to do cannot be seen here: the C
    // library then takes clone().
    const struct scmp_arg_cmp thread = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD);
    const struct scmp_arg_cmp not_executable = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    const int family[] = {AF_UNIX, AF_INET, AF_INET6};
    unsigned families = internet ? 3 : 1;
    add_all(build, SCMP_ACT_ALLOW, fl_calls_of_the_engine);
    add_all(build, SCMP_ACT_ALLOW, fl_calls_of_sanitizers);
    for (unsigned i = 0; i < families; i++) {
        const struct scmp_arg_cmp is = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family[i], 0);
        add(build, SCMP_ACT_ALLOW, "socket", 1, &is);
    }
    if (!is_in("mmap", fl_calls_of_sanitizers)) {
        add(build, SCMP_ACT_ALLOW, "clone", 1, &thread);
        add(build, SCMP_ACT_ALLOW, "mmap", 1, &not_executable);
        add(build, SCMP_ACT_ALLOW, "mprotect", 1, &not_executable);
        add(build, answer(build, SCMP_ACT_ERRNO(ENOSYS)), "clone3", 0, NULL);
    }
    add_all(build, answer(build, SCMP_ACT_KILL_PROCESS), fl_calls_of_administration);
    add_all(build, answer(build, SCMP_ACT_KILL_PROCESS), fl_calls_that_start_programs);
}

static uint32_t default_answer(enum fl_call_filter which)
{
    // Not TRAP for what engines inherit: an exec forgets handlers.
    return which == FL_CALL_FILTER_KEEPER ? SCMP_ACT_ERRNO(ENOSYS) : SCMP_ACT_TRAP;
}

static int build_filter(enum fl_call_filter which, const struct fl_call_filter_options *options,
                        scmp_filter_ctx *ret_filter)
{
    enum { TREE = 2 }; // a binary tree of comparisons instead of a list
    struct build build = {.mode = options->mode};
    build.otherwise = answer(&build, default_answer(which));
    build.filter = seccomp_init(build.otherwise);
    if (!build.filter)
        return -ENOMEM;
    build.error = seccomp_attr_set(build.filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!build.error)
        build.error = seccomp_attr_set(build.filter, SCMP_FLTATR_API_SYSRAWRC, 1);
    if (!build.error)
        build.error = seccomp_attr_set(build.filter, SCMP_FLTATR_CTL_OPTIMIZE, TREE);
    if (which == FL_CALL_FILTER_KEEPER)
        add_keeper(&build, options->mounts);
    else
        add_engine(&build, options->internet);
    if (build.error) {
        seccomp_release(build.filter);
        return build.error;
    }
    *ret_filter = build.filter;
    return 0;
}

int fl_call_filter_install(enum fl_call_filter which, const struct fl_call_filter_options *options)
{
    scmp_filter_ctx filter = NULL;
    if (options->mode == FL_CALL_FILTER_OFF)
        return 0;
    int error = build_filter(which, options, &filter);
    if (error)
        return error;
    if (which == FL_CALL_FILTER_ENGINE)
        error = catch_refused();
    if (!error)
        error = seccomp_load(filter);
    seccomp_release(filter);
    return error;
}

int fl_call_filter_export(enum fl_call_filter which, const struct fl_call_filter_options *options,
                          int fd)
{
    scmp_filter_ctx filter = NULL;
    int error = build_filter(which, options, &filter);
    if (error)
        return error;
    error = seccomp_export_bpf(filter, fd);
    seccomp_release(filter);
    return error;
}
