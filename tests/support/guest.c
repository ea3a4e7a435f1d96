// SPDX-License-Identifier: Apache-2.0
#include "tests/support/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { VCPUS = GUEST_VCPUS, PORT = 0x3f8, CR0_PE = 1, CODE = 11, DATA = 3 };

// In the guest's page 0, so that it comes out of the snapshot like all else. The address is in esi,
// the count in ecx, the step in edx; ebx is 0.
static const uint8_t program[] = {
    0x03, 0x1e,             // next: add ebx, [esi]
    0x01, 0xd6,             // add esi, edx
    0x49,                   // dec ecx
    0x75, 0xf9,             // jnz next
    0x89, 0xd8,             // mov eax, ebx
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xef,                   // out dx, eax
    0xf4,                   // hlt
};

struct guest {
    struct vmm vmm;
    int vm;
    size_t run_bytes;
};

struct vcpu {
    struct guest *guest;
    unsigned number;
    uint32_t sum;
    pthread_t thread;
};

static int control(int fd, unsigned long request, const char *name, void *arg)
{
    int result = ioctl(fd, request, arg);
    CHECK(result >= 0, "%s: %s", name, strerror(errno));
    return result;
}

static void add_slots(struct guest *guest)
{
    for (unsigned i = 0; i < guest->vmm.regions; i++) {
        struct kvm_userspace_memory_region slot = {.slot = i,
                                                   .guest_phys_addr = guest->vmm.region[i].offset,
                                                   .memory_size = guest->vmm.region[i].bytes,
                                                   .userspace_addr =
                                                       (uintptr_t)guest->vmm.region[i].base};
        control(guest->vm, KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", &slot);
    }
}

static void make_guest(struct guest *guest)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    CHECK(kvm >= 0, "/dev/kvm: %s", strerror(errno));
    guest->vm = ioctl(kvm, KVM_CREATE_VM, 0);
    CHECK(guest->vm >= 0, "KVM_CREATE_VM: %s", strerror(errno));
    int bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    CHECK(bytes > 0, "KVM_GET_VCPU_MMAP_SIZE: %s", strerror(errno));
    guest->run_bytes = (size_t)bytes;
    close(kvm);
    add_slots(guest);
}

static void set_flat(struct kvm_segment *segment, uint8_t type)
{
    *segment = (struct kvm_segment){
        .limit = 0xffffffff, .selector = 8, .type = type, .present = 1, .db = 1, .s = 1, .g = 1};
}

static void set_registers(int fd, const struct vcpu *vcpu)
{
    struct kvm_sregs special;
    control(fd, KVM_GET_SREGS, "KVM_GET_SREGS", &special);
    set_flat(&special.cs, CODE);
    set_flat(&special.ds, DATA);
    special.es = special.fs = special.gs = special.ss = special.ds;
    special.cr0 |= CR0_PE;
    control(fd, KVM_SET_SREGS, "KVM_SET_SREGS", &special);
    uint32_t pages = (uint32_t)(vcpu->guest->vmm.memory->bytes / PAGE);
    bool up = vcpu->number % 2 == 0;
    struct kvm_regs registers = {.rflags = 2,
                                 .rsi = up ? 0 : (uint64_t)(pages - 1) * PAGE,
                                 .rcx = pages,
                                 .rdx = up ? PAGE : (uint32_t)-PAGE};
    control(fd, KVM_SET_REGS, "KVM_SET_REGS", &registers);
}

static void *run_vcpu(void *arg)
{
    struct vcpu *vcpu = arg;
    int fd = ioctl(vcpu->guest->vm, KVM_CREATE_VCPU, vcpu->number);
    CHECK(fd >= 0, "KVM_CREATE_VCPU: %s", strerror(errno));
    struct kvm_run *run =
        mmap(NULL, vcpu->guest->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(run != MAP_FAILED, "mmap: %s", strerror(errno));
    set_registers(fd, vcpu);
    for (;;) {
        CHECK(ioctl(fd, KVM_RUN, 0) == 0 || errno == EINTR, "KVM_RUN: %s", strerror(errno));
        if (run->exit_reason == KVM_EXIT_HLT)
            break;
        if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
            _exit(GUEST_SAW_MMIO);
        CHECK(run->exit_reason == KVM_EXIT_IO && run->io.port == PORT && run->io.size == 4,
              "vCPU %u exits with reason %u", vcpu->number, run->exit_reason);
        memcpy(&vcpu->sum, (uint8_t *)run + run->io.data_offset, sizeof(vcpu->sum));
    }
    close(fd);
    return NULL;
}

static uint32_t right_sum(const struct memory *memory)
{
    uint32_t sum = 0;
    for (uint64_t at = 0; at < memory->bytes; at += PAGE) {
        uint32_t word;
        memcpy(&word, memory->data + at, sizeof(word));
        sum += word;
    }
    return sum;
}

int guest_main(int channel, struct client_shared *shared, void *arg)
{
    static struct guest guest;
    const struct guest_options *options = arg;
    struct vcpu vcpus[VCPUS];
    uint32_t sum = right_sum(options->memory);
    (void)channel;
    (void)shared;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); // it may end in SIGBUS
    vmm_map(&guest.vmm, options->memory, options->page_bytes, options->regions, VMM_MAIN);
    make_guest(&guest);
    vmm_handshake(&guest.vmm, options->socket);
    for (unsigned i = 0; i < VCPUS; i++) {
        vcpus[i] = (struct vcpu){.guest = &guest, .number = i};
        CHECK(pthread_create(&vcpus[i].thread, NULL, run_vcpu, &vcpus[i]) == 0, "pthread_create");
    }
    for (unsigned i = 0; i < VCPUS; i++)
        pthread_join(vcpus[i].thread, NULL);
    for (unsigned i = 0; i < VCPUS; i++)
        CHECK(vcpus[i].sum == sum, "vCPU %u: sum %u, not %u", i, vcpus[i].sum, sum);
    return 0;
}

void guest_put_program(const char *file)
{
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, program, sizeof(program), 0) != (ssize_t)sizeof(program))
        client_fail(__FILE__, __LINE__, "the program is written", "%s: %s", file, strerror(errno));
    close(fd);
}
