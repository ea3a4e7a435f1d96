// SPDX-License-Identifier: Apache-2.0
#include "tests/support/mini_firecracker.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/client.h"
#include "tests/support/server.h"
#include "tests/support/vmm.h"

enum {
    CONNECTIONS = 16,
    REQUEST_BYTES = 4096,
    ANSWER_BYTES = 4096,
    STEP_US = 200,
    JAIL_USER = 10007
};

struct connection {
    int fd; // -1: free
    size_t used;
    char text[REQUEST_BYTES + 1];
    size_t owed;
    char answers[ANSWER_BYTES];
};

struct api {
    struct mini_firecracker *mini;
    struct vmm *vmm;
    int listener;
    struct connection connection[CONNECTIONS];
};

// --- what the test has ordered ---

// Whether it is to go on.
static bool step(struct mini_firecracker *mini, enum mini_step step)
{
    atomic_store(&mini->at, step);
    if (atomic_load(&mini->dies_at) == (int)step)
        raise(SIGKILL);
    while (atomic_load(&mini->waits_at) == (int)step)
        usleep(STEP_US);
    return atomic_load(&mini->refuses_at) != (int)step;
}

// --- answers, as Firecracker's ---

// It has them sent only when it has obeyed all requests that had come.
static void answer(struct connection *to, int status, const char *body)
{
    char *text = to->answers + to->owed;
    size_t room = sizeof(to->answers) - to->owed;
    int length = body ? snprintf(text, room,
                                 "HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: "
                                 "keep-alive\r\nContent-Type: application/json\r\n"
                                 "Content-Length: %zu\r\n\r\n%s",
                                 status, strlen(body), body)
                      : snprintf(text, room,
                                 "HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: "
                                 "keep-alive\r\n\r\n",
                                 status);
    CHECK((size_t)length < room, "too many answers at once");
    to->owed += (size_t)length;
}

static void send_answers(struct connection *to)
{
    if (to->fd >= 0 && to->owed > 0) {
        ssize_t sent = send(to->fd, to->answers, to->owed, MSG_NOSIGNAL);
        (void)sent; // the client may have gone
    }
    to->owed = 0;
}

static void answer_fault(struct connection *to, const char *fault)
{
    char body[512];
    snprintf(body, sizeof(body), "{\"fault_message\":\"%s\"}", fault);
    answer(to, 400, body);
}

static void answer_failed_call(struct connection *to, const char *call, const char *file, int error)
{
    char fault[256];
    snprintf(fault, sizeof(fault),
             "Create snapshot error: Cannot perform %s on the %s backing file: %s (os error %d)",
             call, file, strerror(error), error);
    answer_fault(to, fault);
}

// --- requests ---

// The value of a key of a flat JSON object of strings.
static bool value_of(const char *json, const char *key, char *value, size_t size)
{
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "\"%s\"", key);
    const char *at = strstr(json, quoted);
    at = at ? strchr(at + strlen(quoted), ':') : NULL;
    at = at ? strchr(at, '"') : NULL;
    size_t length = at ? strcspn(at + 1, "\"") : size;
    if (length >= size)
        return false;
    memcpy(value, at + 1, length);
    value[length] = '\0';
    return true;
}

static void describe(struct api *api, struct connection *to)
{
    char body[256];
    snprintf(body, sizeof(body),
             "{\"id\":\"anonymous-instance\",\"state\":\"%s\",\"vmm_version\":\"%s\","
             "\"app_name\":\"Firecracker\"}",
             atomic_load(&api->mini->paused) ? "Paused" : "Running", api->mini->version);
    answer(to, 200, body);
}

static void pause_vm(struct api *api, struct connection *to)
{
    struct mini_firecracker *mini = api->mini;
    if (!step(mini, MINI_PAUSE)) {
        answer_fault(to, "Failed to pause the vCPUs");
        return;
    }
    CHECK(writers_pause(mini->writers), "the threads do not pause");
    atomic_store(&mini->paused, true);
    atomic_fetch_add(&mini->pauses, 1);
    step(mini, MINI_PAUSED);
    answer(to, 204, NULL);
}

static void resume_vm(struct api *api, struct connection *to)
{
    struct mini_firecracker *mini = api->mini;
    if (!step(mini, MINI_RESUME)) {
        answer_fault(to, "Failed to resume the vCPUs");
        return;
    }
    atomic_store(&mini->paused, false);
    writers_resume(mini->writers);
    atomic_fetch_add(&mini->resumes, 1);
    step(mini, MINI_RESUMED);
    answer(to, 204, NULL);
}

// What the reset of a vsock device does while the state is made: it writes to the guest's memory,
// and not to what may be unplugged.
static void write_to_memory(struct api *api)
{
    struct mini_firecracker *mini = api->mini;
    const struct writers *writers = mini->writers;
    uint32_t page = (writers->pages - writers->slots * writers->slot_pages) / 2;
    uint64_t sequence = mini->writers->page[page].sequence + 1;
    for (uint32_t at = 0; at < mini->page_bytes; at += PAGE) {
        uint8_t *bytes = vmm_page(api->vmm, page) + at;
        memcpy(bytes, &sequence, sizeof(sequence));
        memcpy(bytes + PAGE - sizeof(sequence), &sequence, sizeof(sequence));
    }
    mini->writers->page[page].sequence = sequence;
}

static size_t size_of(const struct writers *writers)
{
    return sizeof(*writers) + writers->pages * sizeof(writers->page[0]);
}

static bool write_state(struct api *api, struct connection *to, const char *path)
{
    char text[128];
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) {
        answer_failed_call(to, "open", "snapshot", errno);
        return false;
    }
    write_to_memory(api);
    memcpy(api->mini->moment, api->mini->writers, size_of(api->mini->writers));
    int length = snprintf(text, sizeof(text), "state %u of %d\n", atomic_load(&api->mini->creates),
                          (int)getpid());
    CHECK(write(file, text, (size_t)length) == length && fsync(file) == 0, "%s", strerror(errno));
    close(file);
    return true;
}

static void write_memory(struct api *api, struct connection *to, const char *path)
{
    struct stat status;
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) {
        answer_failed_call(to, "open", "memory", errno);
        return;
    }
    if (!step(api->mini, MINI_OPENED)) {
        answer_fault(to, "Create snapshot error: Cannot write memory file: no");
        close(file);
        return;
    }
    CHECK(fstat(file, &status) == 0, "%s", strerror(errno));
    if (ftruncate(file, 0) < 0) {
        answer_failed_call(to, "truncate", "memory", errno);
    } else {
        uint64_t bytes = vmm_page_offset(api->vmm, api->vmm->pages);
        uint8_t *image = malloc(bytes);
        CHECK(image, "no memory");
        writers_image(api->mini->moment, api->mini->memory, image);
        CHECK(write(file, image, bytes) == (ssize_t)bytes, "%s", strerror(errno));
        free(image);
        answer(to, 204, NULL);
    }
    close(file);
}

// The error of an open that does not wait. It comes before the state is written, as nobody opens
// the other end before that: afterwards it would be a matter of who is first.
static int open_impatiently(const char *path)
{
    int file = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(file < 0, "%s has a reader before the state is written", path);
    return errno;
}

static void create(struct api *api, struct connection *to, const char *body)
{
    int error = 0;
    char state[REQUEST_BYTES];
    char memory[REQUEST_BYTES];
    struct mini_firecracker *mini = api->mini;
    if (!value_of(body, "snapshot_path", state, sizeof(state)) ||
        !value_of(body, "mem_file_path", memory, sizeof(memory)) || !strstr(body, "\"Full\"")) {
        answer_fault(to, "An error occurred when deserializing the json body of a request");
        return;
    }
    if (!atomic_load(&mini->paused)) {
        answer_fault(to, "Create snapshot error: Cannot save the microVM state: Operation not "
                         "allowed: save/restore unavailable while running");
        return;
    }
    atomic_fetch_add(&mini->creates, 1);
    if (!step(mini, MINI_CREATE)) {
        answer_fault(to, "Create snapshot error: Cannot save the microVM state: no");
        return;
    }
    if (atomic_load(&mini->impatient))
        error = open_impatiently(memory);
    if (!write_state(api, to, state))
        return;
    step(mini, MINI_WRITTEN);
    if (error)
        answer_failed_call(to, "open", "memory", error);
    else
        write_memory(api, to, memory);
}

static void respond(struct api *api, struct connection *to, const char *request, const char *body)
{
    if (strncmp(request, "GET / ", 6) == 0)
        describe(api, to);
    else if (strncmp(request, "PATCH /vm ", 10) == 0 && strstr(body, "\"Paused\""))
        pause_vm(api, to);
    else if (strncmp(request, "PATCH /vm ", 10) == 0 && strstr(body, "\"Resumed\""))
        resume_vm(api, to);
    else if (strncmp(request, "PUT /snapshot/create ", 21) == 0)
        create(api, to, body);
    else
        answer_fault(to, "Invalid request method and/or path");
}

// --- the loop ---

// Bytes of a whole request at the beginning of the text, 0 if there is none.
static size_t whole_request(const char *text, size_t used, const char **ret_body)
{
    const char *end = strstr(text, "\r\n\r\n");
    if (!end)
        return 0;
    const char *field = strcasestr(text, "\r\ncontent-length:");
    size_t length = field && field < end ? strtoul(field + 17, NULL, 10) : 0;
    *ret_body = end + 4;
    size_t whole = (size_t)(end + 4 - text) + length;
    return whole <= used ? whole : 0;
}

static void hear(struct api *api, struct connection *from)
{
    const char *body;
    ssize_t got = recv(from->fd, from->text + from->used, REQUEST_BYTES - from->used, 0);
    if (got <= 0) {
        close(from->fd);
        *from = (struct connection){.fd = -1};
        return;
    }
    from->used += (size_t)got;
    from->text[from->used] = '\0';
    size_t whole;
    while ((whole = whole_request(from->text, from->used, &body)) > 0) {
        char saved = from->text[whole];
        from->text[whole] = '\0';
        respond(api, from, from->text, body);
        from->text[whole] = saved;
        memmove(from->text, from->text + whole, from->used - whole + 1);
        from->used -= whole;
    }
}

static void take_connection(struct api *api)
{
    int fd = accept4(api->listener, NULL, NULL, SOCK_CLOEXEC);
    for (unsigned i = 0; i < CONNECTIONS && fd >= 0; i++) {
        if (api->connection[i].fd < 0) {
            api->connection[i].fd = fd;
            return;
        }
    }
    if (fd >= 0)
        close(fd);
}

static void *run_api(void *arg)
{
    struct api *api = arg;
    for (;;) {
        struct pollfd all[CONNECTIONS + 1];
        for (unsigned i = 0; i < CONNECTIONS; i++)
            all[i] = (struct pollfd){.fd = api->connection[i].fd, .events = POLLIN};
        all[CONNECTIONS] = (struct pollfd){.fd = api->listener, .events = POLLIN};
        if (poll(all, CONNECTIONS + 1, -1) < 0)
            continue;
        for (unsigned i = 0; i < CONNECTIONS; i++) {
            if (all[i].revents)
                hear(api, &api->connection[i]);
        }
        for (unsigned i = 0; i < CONNECTIONS; i++)
            send_answers(&api->connection[i]);
        if (all[CONNECTIONS].revents)
            take_connection(api);
    }
    return NULL;
}

static void start_api(struct api *api)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;
    for (unsigned i = 0; i < CONNECTIONS; i++)
        api->connection[i].fd = -1;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", api->mini->api);
    unlink(api->mini->api);
    api->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(api->listener >= 0 &&
              bind(api->listener, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(api->listener, CONNECTIONS) == 0,
          "%s: %s", api->mini->api, strerror(errno));
    CHECK(pthread_create(&thread, NULL, run_api, api) == 0, "no thread");
    pthread_detach(thread);
}

static void enter_jail(const char *jail)
{
    CHECK(chroot(jail) == 0 && chdir("/") == 0, "chroot %s: %s", jail, strerror(errno));
    CHECK(setgroups(0, NULL) == 0 && setgid(JAIL_USER) == 0 && setuid(JAIL_USER) == 0, "%s",
          strerror(errno));
}

// The last pages of a file that are not mapped belong to no thread.
static void map_file(struct vmm *vmm, const struct mini_firecracker *mini)
{
    const struct vmm_region *last = &vmm->region[mini->regions - 1];
    vmm_map_file(vmm, mini->memory, mini->regions, mini->file, mini->shares_file);
    if (mini->lacks_bytes)
        munmap(last->base + last->bytes - mini->lacks_bytes, mini->lacks_bytes);
}

static void map_anonymous(struct vmm *vmm, const struct mini_firecracker *mini)
{
    const struct writers *writers = mini->writers;
    if (mini->silent) {
        vmm_map_silent(vmm, mini->memory, mini->page_bytes, mini->regions);
        return;
    }
    vmm_map_memory(vmm, mini->memory, mini->page_bytes, mini->regions, mini->protocol);
    if (writers->slots)
        vmm_add_hotplug(vmm, (uint64_t)writers->slots * writers->slot_pages * mini->page_bytes);
    vmm->uffd = vmm_open_uffd(mini->protocol);
    vmm_enable(vmm->uffd, 0);
    vmm_register(vmm);
}

int mini_main(int channel, struct client_shared *shared, void *arg)
{
    static struct vmm vmm;
    static struct api api;
    struct mini_firecracker *mini = arg;
    if (mini->file)
        map_file(&vmm, mini);
    else if (mini->maps_template)
        vmm_map_template(&vmm, mini->memory, mini->regions, mini->socket, NULL);
    else
        map_anonymous(&vmm, mini);
    vmm.shared = shared;
    if (mini->maps_template)
        vmm_handshake_template(&vmm);
    else if (!mini->file)
        vmm_handshake(&vmm, mini->socket);
    for (unsigned i = 0; i < vmm.regions; i++) {
        mini->base[i] = vmm.region[i].base;
        mini->bytes[i] = vmm.region[i].bytes;
    }
    if (mini->jail)
        enter_jail(mini->jail);
    api = (struct api){.mini = mini, .vmm = &vmm};
    start_api(&api);
    atomic_store(&mini->paused, mini->starts_paused);
    atomic_store(&mini->writers->paused, mini->starts_paused);
    tell_test(channel, 'a');
    writers_run(mini->writers, &vmm);
    return 0;
}

// --- the test's side ---

struct mini_firecracker *mini_new(const struct memory *memory, const char *socket, const char *api)
{
    struct mini_firecracker *mini =
        mmap(NULL, sizeof(*mini), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mini == MAP_FAILED)
        return NULL;
    mini->memory = memory;
    mini->socket = socket;
    mini->api = api;
    mini->version = "1.17.0-dev";
    mini->regions = 2;
    mini->protocol = VMM_MAIN;
    return mini_make_writers(mini, PAGE) ? mini : NULL;
}

static void free_writers(struct mini_firecracker *mini)
{
    if (mini->writers)
        writers_free(mini->writers);
    if (mini->moment)
        writers_free(mini->moment);
}

static bool make_writers(struct mini_firecracker *mini, uint32_t slots, uint32_t slot_pages)
{
    uint32_t page_bytes = mini->page_bytes;
    uint32_t pages = (uint32_t)((mini->memory->bytes + page_bytes - 1) / page_bytes);
    free_writers(mini);
    mini->writers = writers_new(pages + slots * slot_pages, page_bytes);
    mini->moment = writers_new(pages + slots * slot_pages, page_bytes);
    if (!mini->writers || !mini->moment)
        return false;
    mini->writers->rests_us = 200;
    mini->writers->hot = pages;
    mini->writers->slots = slots;
    mini->writers->slot_pages = slot_pages;
    return true;
}

bool mini_make_writers(struct mini_firecracker *mini, uint32_t page_bytes)
{
    mini->page_bytes = page_bytes;
    return make_writers(mini, 0, 0);
}

bool mini_add_hotplug(struct mini_firecracker *mini, uint32_t slots, uint64_t slot_bytes)
{
    return make_writers(mini, slots, (uint32_t)(slot_bytes / mini->page_bytes));
}

void mini_free(struct mini_firecracker *mini)
{
    free_writers(mini);
    munmap(mini, sizeof(*mini));
}

struct place {
    struct mini_firecracker *mini;
    enum mini_step step;
};

static bool is_there(void *arg)
{
    const struct place *place = arg;
    return atomic_load(&place->mini->at) == (int)place->step;
}

bool mini_comes_to(struct mini_firecracker *mini, enum mini_step step)
{
    struct place place = {mini, step};
    return wait_until(is_there, &place);
}

static bool is_not_paused(void *arg)
{
    struct mini_firecracker *mini = arg;
    return !atomic_load(&mini->paused);
}

bool mini_runs(struct mini_firecracker *mini)
{
    return wait_until(is_not_paused, mini) && writers_go_on(mini->writers, 20);
}

long mini_protected(const struct mini_firecracker *mini, pid_t pid)
{
    long all = 0;
    for (unsigned i = 0; i < VMM_REGIONS && mini->base[i] && all >= 0; i++) {
        long some = writers_protected(pid, mini->base[i], mini->bytes[i]);
        all = some < 0 ? -1 : all + some;
    }
    return all;
}
