// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/engine/ahead/capture_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/attach.h"
#include "engine/accept/peer.h"
#include "engine/base/clock.h"
#include "engine/base/rcu.h"
#include "engine/control/totals.h"
#include "engine/host/uffd.h"
#include "engine/image/images.h"
#include "engine/image/store_place.h"
#include "engine/vm/handshake.h"
#include "engine/vm/options.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"
#include "tests/support/client.h"
#include "tests/support/vmm.h"
#include "tests/unit/snapshot_support.h"

enum { WAIT_MS = 30000 };

// All that there is of it; one a process.
static struct {
    struct rig rig;
    struct rig_wish wish;
    struct workspace workspace;
    struct client client;
    char socket[100];
    int listener;
    struct fl_ledger *ledger;
    struct fl_store_place *place;
    bool gone;
    uint64_t base; // of the first region
} all;

// --- the VMM ---

static int vmm_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm = {.shared = shared};
    (void)arg;
    vmm_map(&vmm, &all.rig.memory, all.wish.page_bytes, all.wish.regions, VMM_1_12);
    vmm_handshake(&vmm, all.socket);
    await_test(channel, 'w');
    writers_run(all.rig.writers, &vmm);
    tell_test(channel, 'r');
    await_test(channel, 'e');
    return 0;
}

// --- the control thread: the test ---

static void dispose(struct fl_engine *engine, struct fl_vm *vm)
{
    fl_vm_dispose(engine, vm);
    all.gone = true;
}

static void refuse_child(struct fl_engine *engine, int uffd)
{
    (void)engine;
    close(uffd);
}

static void turn(struct rig *rig)
{
    struct pollfd mail = {.fd = rig->engine->control.event_fd, .events = POLLIN};
    fl_mailbox_drain(&rig->engine->control, rig->engine);
    fl_rcu_quiescent();
    fl_rcu_offline();
    ppoll(&mail, 1, &(struct timespec){.tv_nsec = 100000}, NULL); // a pause is not to be longer
    fl_rcu_online();
}

static void listen_here(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(all.socket, sizeof(all.socket), "%s/s", all.workspace.dir);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", all.socket);
    all.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(all.listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(all.listener, 1) == 0);
}

static int receive(int socket, char *text, size_t size, int *ret_uffd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = size};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    cr_assert(header != NULL);
    memcpy(ret_uffd, CMSG_DATA(header), sizeof(int));
    return (int)got;
}

static void serve(struct rig *rig)
{
    char text[4096];
    struct fl_layout layout;
    struct fl_uffd_info info;
    const char *reason = NULL;
    struct fl_image *image = NULL;
    struct fl_peer peer = {.pid = all.client.pid, .owner = true, .told = true, .uffd = -1};
    peer.socket = accept4(all.listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(peer.socket >= 0);
    int length = receive(peer.socket, text, sizeof(text), &peer.uffd);
    peer.pidfd = (int)syscall(SYS_pidfd_open, all.client.pid, 0);
    cr_assert(fl_uffd_examine(peer.uffd, &info) == 0 && info.ready);
    cr_assert(fl_handshake_parse(text, (size_t)length, &layout, NULL, &reason) == 0, "%s", reason);
    all.base = layout.region[0].base;
    cr_assert(fl_images_get(rig->engine->images, "image", &image) == 0);
    uint64_t id = rig->engine->vms.next_id;
    cr_assert(fl_attach(rig->engine, &peer, image, &layout) == 0);
    rig->vm = fl_vms_find(&rig->engine->vms, id);
    cr_assert(rig->vm != NULL);
}

void rig_needs(void)
{
    long fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0)
        cr_skip_test("no userfaultfd");
    close((int)fd);
}

struct rig *rig_start(const struct rig_wish *wish)
{
    static const struct fl_engine_ops ops = {.dispose = dispose, .refuse_child = refuse_child};
    struct rig *rig = &all.rig;
    struct fl_pack_result packed;
    struct fl_engine_options options = fl_engine_defaults;
    all.wish = *wish;
    all.wish.regions = wish->regions > 0 ? wish->regions : 1;
    cr_assert(workspace_make(&all.workspace) == 0);
    memory_make(&rig->memory, all.workspace.memory, wish->bytes, 7);
    cr_assert(pack_file(all.workspace.store, "image", all.workspace.memory, &packed) == 0);
    rig->bytes = wish->bytes;
    rig->writers = writers_new((uint32_t)(wish->bytes / wish->page_bytes), wish->page_bytes);
    cr_assert(rig->writers != NULL);
    rig->writers->threads = wish->threads > 0 ? wish->threads : 2;
    rig->writers->removes = wish->removes;
    rig->writers->rests_us = wish->rests_us;
    listen_here();
    client_start(&all.client, vmm_main, NULL); // while there is one thread
    rig->pid = all.client.pid;
    options.workers = 1;
    options.cache_bytes = 64 << 20;
    cr_assert(fl_totals_new_ledger(&all.ledger) == 0);
    cr_assert(fl_engine_start(&options, &ops, all.ledger, &rig->engine) == 0);
    cr_assert(fl_store_place_new(all.workspace.store, &all.place) == 0);
    cr_assert(fl_images_new(all.place, NULL, &rig->engine->images) == 0);
    serve(rig);
    client_tell(&all.client, 'w');
    return rig;
}

void rig_vm_is_let_go(struct rig *rig)
{
    for (uint64_t until = fl_now() + WAIT_MS * FL_NS_PER_MS; !all.gone && fl_now() < until;)
        turn(rig);
    cr_assert(all.gone);
}

bool rig_vm_ends(struct rig *rig)
{
    writers_end(rig->writers);
    bool right = client_says(&all.client, 'r');
    if (right)
        client_tell(&all.client, 'e');
    int status = client_wait(&all.client);
    rig_vm_is_let_go(rig);
    return right && status == 0;
}

void rig_vm_dies(struct rig *rig)
{
    client_kill(&all.client);
    rig_vm_is_let_go(rig);
}

void rig_stop(void)
{
    struct rig *rig = &all.rig;
    if (rig->engine) {
        client_kill(&all.client);
        for (uint64_t until = fl_now() + WAIT_MS * FL_NS_PER_MS; !all.gone && fl_now() < until;)
            turn(rig);
        struct fl_images *images = rig->engine->images;
        fl_engine_stop(rig->engine);
        fl_images_free(images);
        fl_store_place_free(all.place);
        fl_ledger_free(all.ledger);
        close(all.listener);
    }
    writers_free(rig->writers);
    memory_free(&rig->memory);
    workspace_remove(&all.workspace);
}

// --- in the owner's thread ---

struct errand {
    struct fl_mail mail;
    struct rig *rig;
    void (*run)(struct fl_shard *shard, struct fl_vm *vm, void *arg);
    void *arg;
};

// It may have gone to another thread meanwhile.
static void run_errand(void *owner, struct fl_mail *mail)
{
    struct errand *errand = caa_container_of(mail, struct errand, mail);
    struct fl_shard *shard = atomic_load(&errand->rig->vm->owner);
    if (shard != owner) {
        fl_mailbox_post(&shard->mailbox, mail);
        return;
    }
    void (*run)(struct fl_shard *, struct fl_vm *, void *) = errand->run;
    void *arg = errand->arg;
    struct fl_vm *vm = errand->rig->vm;
    free(errand); // before it: it may not come back
    run(shard, vm, arg);
}

static void drop_errand(struct fl_mail *mail)
{
    free(caa_container_of(mail, struct errand, mail));
}

void rig_in_owner(struct rig *rig, void (*run)(struct fl_shard *shard, struct fl_vm *vm, void *arg),
                  void *arg)
{
    struct errand *errand = calloc(1, sizeof(*errand));
    cr_assert(errand != NULL);
    errand->mail.deliver = run_errand;
    errand->mail.drop = drop_errand;
    errand->rig = rig;
    errand->run = run;
    errand->arg = arg;
    fl_mailbox_post(&atomic_load(&rig->vm->owner)->mailbox, &errand->mail);
}

static void tell(void *arg, enum fl_capture_phase phase, int error, const char *reason)
{
    struct taken *taken = arg;
    if (phase == FL_CAPTURE_FAILED) {
        taken->error = error;
        snprintf(taken->reason, sizeof(taken->reason), "%s", reason);
    }
    atomic_fetch_add(&taken->told, 1);
    atomic_store(&taken->phase, phase);
}

static void begin(struct fl_shard *shard, struct fl_vm *vm, void *arg)
{
    struct taken *taken = arg;
    fl_capture_begin(shard, vm, taken->capture);
}

struct taken *rig_begin(struct rig *rig, uint64_t flags)
{
    struct fl_error error = {""};
    struct taken *taken = calloc(1, sizeof(*taken));
    uint64_t ahead = all.wish.ahead_bytes > 0 ? all.wish.ahead_bytes : rig->bytes;
    struct fl_capture_wish wish = {
        .flags = flags, .ahead_bytes = ahead, .tell = tell, .arg = taken};
    cr_assert(fl_capture_new(rig->vm, &wish, &taken->capture, &error) == 0, "%s", error.text);
    rig_in_owner(rig, begin, taken);
    return taken;
}

bool rig_await(struct rig *rig, struct taken *taken, enum fl_capture_phase phase)
{
    for (uint64_t until = fl_now() + WAIT_MS * FL_NS_PER_MS; fl_now() < until; turn(rig)) {
        if (atomic_load(&taken->phase) >= (int)phase)
            return phase == FL_CAPTURE_FAILED || atomic_load(&taken->phase) != FL_CAPTURE_FAILED;
    }
    cr_assert(false, "phase %d was not told within the deadline, but %d", phase, taken->phase);
    return false;
}

static void freeze(struct fl_shard *shard, struct fl_vm *vm, void *arg)
{
    fl_capture_freeze(shard, vm, ((struct taken *)arg)->capture);
}

void rig_freeze(struct rig *rig, struct taken *taken)
{
    rig_in_owner(rig, freeze, taken);
}

struct commit {
    struct taken *taken;
    char image[FL_CAPTURE_PARENT];
};

static void commit(struct fl_shard *shard, struct fl_vm *vm, void *arg)
{
    struct commit *order = arg;
    fl_capture_commit(shard, vm, order->taken->capture, order->image);
    free(order);
}

void rig_commit(struct rig *rig, struct taken *taken, const char *image)
{
    struct commit *order = calloc(1, sizeof(*order));
    order->taken = taken;
    snprintf(order->image, sizeof(order->image), "%s", image);
    rig_in_owner(rig, commit, order);
}

static void cancel(struct fl_shard *shard, struct fl_vm *vm, void *arg)
{
    fl_capture_cancel(shard, vm, ((struct taken *)arg)->capture, -ECANCELED, "the test cancels it");
}

void rig_cancel(struct rig *rig, struct taken *taken)
{
    rig_in_owner(rig, cancel, taken);
}

void rig_drop(struct taken *taken)
{
    fl_capture_unref(taken->capture);
    free(taken);
}

static void look_if_free(struct fl_shard *shard, struct fl_vm *vm, void *arg)
{
    (void)shard;
    atomic_store((_Atomic int *)arg, vm->capture || vm->unprotect.runs ? 1 : 2);
}

bool rig_is_free(struct rig *rig)
{
    static _Atomic int state;
    for (uint64_t until = fl_now() + WAIT_MS * FL_NS_PER_MS; fl_now() < until; turn(rig)) {
        atomic_store(&state, 0);
        rig_in_owner(rig, look_if_free, &state);
        while (atomic_load(&state) == 0)
            turn(rig);
        if (atomic_load(&state) == 2)
            return true;
    }
    return false;
}

// --- swap ---

static long count_swapped(int pagemap, const struct fl_region *region)
{
    long count = 0;
    uint64_t entry;
    for (uint64_t at = 0; at < region->bytes; at += PAGE) {
        off_t offset = (off_t)((region->base + at) / PAGE * sizeof(entry));
        if (pread(pagemap, &entry, sizeof(entry), offset) == sizeof(entry))
            count += (long)(entry >> 62 & 1);
    }
    return count;
}

long rig_swap_out(struct rig *rig)
{
    const struct fl_layout *layout = &rig->vm->state->layout;
    int pidfd = (int)syscall(SYS_pidfd_open, rig->pid, 0);
    long count = 0;
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        for (uint64_t at = 0; at < region->bytes; at += HUGE) {
            struct iovec range = {(void *)(uintptr_t)(region->base + at), HUGE};
            syscall(SYS_process_madvise, pidfd, &range, 1, MADV_PAGEOUT, 0);
        }
        count += count_swapped(rig->vm->presence.pagemap, region);
    }
    close(pidfd);
    return count;
}

// --- what was captured ---

static const uint8_t *map_of(int fd, uint64_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    cr_assert(map != MAP_FAILED);
    return map;
}

const struct fl_capture_board *rig_board(const struct taken *taken)
{
    return taken->capture->board;
}

static bool is_set(const uint64_t *map, uint64_t page)
{
    return __atomic_load_n(&map[page / 64], __ATOMIC_ACQUIRE) >> (page % 64) & 1;
}

uint64_t rig_image(struct rig *rig, const struct taken *taken, uint8_t *image)
{
    const struct fl_capture *capture = taken->capture;
    uint64_t pages = capture->board->image_pages;
    uint64_t missing = 0;
    cr_assert_eq(pages * PAGE, rig->bytes);
    const uint8_t *buffer = map_of(fl_capture_buffer_fd(capture), pages * PAGE);
    for (uint64_t page = 0; page < pages; page++) {
        uint8_t *to = image + page * PAGE;
        if (!is_set(capture->board_done, page))
            missing++;
        else if (is_set(capture->board_data, page))
            memcpy(to, buffer + page * PAGE, PAGE);
        else if (is_set(capture->board_zero, page))
            memset(to, 0, PAGE);
    }
    munmap((void *)(uintptr_t)buffer, pages * PAGE);
    return missing;
}

long rig_protected(struct rig *rig)
{
    const struct fl_layout *layout = &rig->vm->state->layout;
    long count = 0;
    for (uint32_t i = 0; i < layout->regions; i++)
        count += writers_protected(rig->pid, (void *)(uintptr_t)layout->region[i].base,
                                   layout->region[i].bytes);
    return count;
}
