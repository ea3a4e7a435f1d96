// SPDX-License-Identifier: Apache-2.0
//
// In test programs that were built for another architecture and run in qemu-user, an emulator of
// single programs: replaces functions of the C library that cannot work there.
//
// The kernel cannot start a program of another architecture, so an execve() of one becomes an
// execve() of the emulator: Criterion starts each test as a new process of the test program, and
// tests start faultline. glibc's other exec functions call its own execve(), not this one.
//
// qemu-user has no set_robust_list(), and glibc makes no robust mutex without it, which LMDB then
// takes for a failure. A plain mutex differs only when the process that holds it dies.
//
// For a mapping of a file qemu-user first makes an anonymous one, for which the kernel wants memory
// to be there: for the index's 64 GiB, it is not. MAP_NORESERVE asks for none.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// Libraries are to find these functions, too.
#define VISIBLE __attribute__((visibility("default")))

// The emulator's path and its options, from CMAKE_CROSSCOMPILING_EMULATOR.
static char *const emulator[] = {FAULTLINE_EMULATOR};

enum { WORDS = sizeof(emulator) / sizeof(emulator[0]), ARGUMENTS_MAX = 64 };

static bool read_header(const char *path, Elf64_Ehdr *ret_header)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool whole = read(fd, ret_header, sizeof(*ret_header)) == (ssize_t)sizeof(*ret_header);
    close(fd);
    return whole && memcmp(ret_header->e_ident, ELFMAG, SELFMAG) == 0;
}

// True if the file is a program of the architecture that this one was built for.
static bool is_emulated(const char *path)
{
    Elf64_Ehdr own;
    Elf64_Ehdr other;
    return read_header("/proc/self/exe", &own) && read_header(path, &other) &&
           own.e_machine == other.e_machine;
}

VISIBLE int execve(const char *path, char *const argv[], char *const envp[])
{
    const char *words[WORDS + ARGUMENTS_MAX + 4];
    size_t count = WORDS;
    if (!is_emulated(path))
        return (int)syscall(SYS_execve, path, argv, envp);
    memcpy(words, emulator, sizeof(emulator));
    words[count++] = "-0"; // what the program finds in argv[0]
    words[count++] = argv[0];
    words[count++] = path;
    for (size_t i = 1; argv[i]; i++) {
        if (i > ARGUMENTS_MAX) {
            errno = E2BIG;
            return -1;
        }
        words[count++] = argv[i];
    }
    words[count] = NULL;
    return (int)syscall(SYS_execve, emulator[0], words, envp);
}

VISIBLE int execv(const char *path, char *const argv[])
{
    return execve(path, argv, environ);
}

VISIBLE int pthread_mutexattr_setrobust(pthread_mutexattr_t *attributes, int robust)
{
    (void)attributes;
    (void)robust;
    return 0;
}

VISIBLE void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a system call returns a number.
    return (void *)syscall(SYS_mmap, address, length, prot, flags | MAP_NORESERVE, fd, offset);
}
