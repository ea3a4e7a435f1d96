// SPDX-License-Identifier: Apache-2.0
#include "engine/base/call_lists.h"

#include <stddef.h>

// clang-format off
const char *const fl_calls_of_administration[] = {
    "_sysctl", "acct", "add_key", "adjtimex", "afs_syscall", "bpf", "chroot", "clock_adjtime", "clock_settime",
    "create_module", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms",
    "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "modify_ldt",
    "mount", "mount_setattr", "move_mount", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open",
#ifndef FAULTLINE_SANITIZED
    "personality", "ptrace",
#endif
    "pivot_root", "process_vm_writev", "query_module", "quotactl", "quotactl_fd", "reboot", "request_key",
    "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon", "sysfs", "syslog", "umount",
    "umount2", "unshare", "uselib", "vhangup",
    NULL,
};

const char *const fl_calls_that_start_programs[] = {
#ifndef FAULTLINE_SANITIZED // it starts a program that names the functions of a backtrace
    "execve", "execveat", "fork", "vfork",
#endif
    NULL,
};

// Not here, as their arguments are looked at: clone, socket, mmap, mprotect (call_filter.c).
const char *const fl_calls_of_the_engine[] = {
    // faults and their bytes
    "ioctl", "read", "write", "io_uring_enter", "futex", "epoll_pwait2", "pread64", "preadv2", "preadv", "readv",
    "madvise", "process_madvise", "clock_gettime", "sched_yield",
    // memory
    "brk", "munmap", "mremap", "mlock", "munlock", "memfd_create", "userfaultfd",
    // waiting
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6", "eventfd2",
    "signalfd4", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "nanosleep", "clock_nanosleep",
    "restart_syscall",
    // files
    "open", "openat", "close", "close_range", "pwrite64", "writev", "pwritev", "lseek", "fstat", "newfstatat", "fstatat64",
    "stat", "lstat", "statx", "statfs", "fstatfs", "readlink", "readlinkat", "getdents64", "fcntl", "flock", "ftruncate",
    "fallocate", "fsync", "fdatasync", "sync_file_range", "fadvise64", "rename", "renameat", "renameat2", "link", "linkat",
    "unlink", "unlinkat", "rmdir", "symlink", "symlinkat", "mkdir", "mkdirat", "access", "faccessat", "faccessat2",
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat", "dup", "dup2", "dup3", "pipe2",
    "umask", "getcwd",
    // sockets, and what is sent over them
    "socketpair", "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername", "getsockopt",
    "setsockopt", "sendto", "recvfrom", "sendmsg", "recvmsg", "shutdown", "sendfile",
    // threads of its own
    "set_robust_list", "rseq", "exit", "exit_group", "set_tid_address", "gettid", "tgkill", "sched_getaffinity",
    "sched_setaffinity", "getcpu", "setpriority", "getpriority", "prctl", "membarrier",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    // itself and other processes
    "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "kcmp", "pidfd_open", "pidfd_send_signal",
    "prlimit64", "getrlimit", "setrlimit", "getrusage", "sysinfo", "uname",
    "gettimeofday", "time", "clock_getres", "getrandom",
    NULL,
};

const char *const fl_calls_of_sanitizers[] = {
#ifdef FAULTLINE_SANITIZED
    "clone", "clone3", "mmap", "mprotect", "execve", "execveat", "fork", "vfork", "wait4", "waitid", "pipe", "ptrace",
    "personality", "mincore", "msync", "kill", "tkill", "getpgrp", "getpgid", "setpgid",
    "arch_prctl", "get_robust_list", "rt_sigpending", "rt_sigtimedwait", "sched_getparam", "sched_getscheduler",
    "getdents", "setitimer", "getitimer", "mlockall", "munlockall",
#endif
    NULL,
};
// clang-format on
