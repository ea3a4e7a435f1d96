// SPDX-License-Identifier: Apache-2.0
#include "tools/top/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const top_sort_name[TOP_SORTS] = {
    [TOP_BY_FAULTS] = "faults", [TOP_BY_LATENCY] = "latency", [TOP_BY_WAITING] = "waiting",
    [TOP_BY_REPLAY] = "replay", [TOP_BY_MEMORY] = "memory",   [TOP_BY_ID] = "id",
};

long long top_number(const json_t *status, const char *object, const char *key)
{
    const json_t *of = *object ? json_object_get(status, object) : status;
    return (long long)json_number_value(json_object_get(of, key));
}

static uint64_t count_of(const json_t *object, const char *key)
{
    long long value = (long long)json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static void copy_text(char *ret_text, size_t size, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    snprintf(ret_text, size, "%s", text ? text : "-");
}

// A counter that has gone back began anew.
static double per_second(uint64_t now, uint64_t before, double seconds)
{
    return seconds > 0 && now >= before ? (double)(now - before) / seconds : TOP_UNKNOWN;
}

// --- VMs ---

static void take_replay(struct top_vm *vm, const json_t *replay)
{
    uint64_t total = count_of(replay, "total");
    uint64_t done = count_of(replay, "pages") + count_of(replay, "late");
    copy_text(vm->replay, sizeof(vm->replay), replay, "state");
    vm->replayed = total > 0 ? (double)(done < total ? done : total) / (double)total : TOP_UNKNOWN;
}

static void take_vm(struct top_vm *vm, const json_t *object)
{
    const json_t *waits = json_object_get(object, "waits");
    *vm = (struct top_vm){
        .id = count_of(object, "id"),
        .pid = (long long)count_of(object, "pid"),
        .memory = count_of(object, "pages") << 12,
        .present = (count_of(object, "installed") + count_of(object, "zeroed")) << 12,
        .faults = TOP_UNKNOWN,
        .average_us = TOP_UNKNOWN,
        .most_us = count_of(waits, "most_us"),
        .waiting = count_of(waits, "now"),
        .fault_count = count_of(object, "faults"),
        .answered = count_of(waits, "answered"),
        .wait_us = count_of(waits, "us"),
    };
    copy_text(vm->image, sizeof(vm->image), object, "image");
    copy_text(vm->state, sizeof(vm->state), object, "state");
    take_replay(vm, json_object_get(object, "replay"));
    if (json_is_object(json_object_get(object, "lane")))
        snprintf(vm->trouble, sizeof(vm->trouble), "lane");
    if (count_of(object, "lacking_ms") > 0)
        snprintf(vm->trouble, sizeof(vm->trouble), "memory");
}

static int compare_ids(const void *left, const void *right)
{
    uint64_t a = ((const struct top_vm *)left)->id;
    uint64_t b = ((const struct top_vm *)right)->id;
    return a < b ? -1 : a > b;
}

static void rate_vm(struct top_vm *vm, const struct top_vm *before, double seconds)
{
    vm->faults = per_second(vm->fault_count, before->fault_count, seconds);
    if (vm->answered > before->answered && vm->wait_us >= before->wait_us)
        vm->average_us =
            (double)(vm->wait_us - before->wait_us) / (double)(vm->answered - before->answered);
}

// The rows of the answer, with rates over the rows before, which this sorts.
static int take_vms(struct top_model *next, struct top_model *before, double seconds)
{
    const json_t *list = json_object_get(next->status, "vm_list");
    double wait_us = 0;
    double answered = 0;
    next->vms = json_array_size(list);
    next->vm = calloc(next->vms + 1, sizeof(*next->vm));
    if (!next->vm)
        return -ENOMEM;
    if (before->vms > 0)
        qsort(before->vm, before->vms, sizeof(*before->vm), compare_ids);
    for (size_t i = 0; i < next->vms; i++) {
        struct top_vm *vm = &next->vm[i];
        take_vm(vm, json_array_get(list, i));
        const struct top_vm *old =
            before->vms > 0 ? bsearch(vm, before->vm, before->vms, sizeof(*before->vm), compare_ids)
                            : NULL;
        if (!old || seconds <= 0)
            continue;
        rate_vm(vm, old, seconds);
        if (vm->average_us >= 0) {
            wait_us += (double)(vm->wait_us - old->wait_us);
            answered += (double)(vm->answered - old->answered);
        }
    }
    next->average_us = answered > 0 ? wait_us / answered : TOP_UNKNOWN;
    return 0;
}

bool top_vm_matches(const struct top_vm *vm, const char *filter)
{
    char number[24];
    if (!*filter || strstr(vm->image, filter) || strstr(vm->state, filter))
        return true;
    snprintf(number, sizeof(number), "%llu", (unsigned long long)vm->id);
    if (strcmp(number, filter) == 0)
        return true;
    snprintf(number, sizeof(number), "%lld", vm->pid);
    return strcmp(number, filter) == 0;
}

// --- images and workers ---

static const struct top_image *find_image(const struct top_model *model, const char *name)
{
    for (size_t i = 0; i < model->images; i++) {
        if (strcmp(model->image[i].image, name) == 0)
            return &model->image[i];
    }
    return NULL;
}

static int take_images(struct top_model *next, const struct top_model *before, double seconds)
{
    const json_t *list = json_object_get(next->status, "image_list");
    next->images = json_array_size(list);
    next->image = calloc(next->images + 1, sizeof(*next->image));
    if (!next->image)
        return -ENOMEM;
    for (size_t i = 0; i < next->images; i++) {
        const json_t *object = json_array_get(list, i);
        struct top_image *image = &next->image[i];
        copy_text(image->image, sizeof(image->image), object, "image");
        image->vms = count_of(object, "vms");
        image->attached = count_of(object, "attached");
        image->refused = count_of(object, "refused");
        image->poisoned = count_of(object, "poisoned");
        image->fault_count = count_of(object, "faults");
        image->late_count = count_of(object, "late");
        const struct top_image *old = find_image(before, image->image);
        image->faults =
            old ? per_second(image->fault_count, old->fault_count, seconds) : TOP_UNKNOWN;
        image->late = old ? per_second(image->late_count, old->late_count, seconds) : TOP_UNKNOWN;
    }
    return 0;
}

static int take_workers(struct top_model *next, const struct top_model *before, double seconds)
{
    const json_t *list = json_object_get(next->status, "worker_list");
    next->workers = json_array_size(list);
    next->worker = calloc(next->workers + 1, sizeof(*next->worker));
    if (!next->worker)
        return -ENOMEM;
    for (size_t i = 0; i < next->workers; i++) {
        const json_t *object = json_array_get(list, i);
        struct top_worker *worker = &next->worker[i];
        worker->vms = count_of(object, "vms");
        worker->parked = count_of(object, "parked");
        worker->fault_count = count_of(object, "faults");
        worker->cpu_us = count_of(object, "cpu_us");
        worker->faults = worker->busy = TOP_UNKNOWN;
        if (i >= before->workers || next->engine != before->engine)
            continue;
        worker->faults = per_second(worker->fault_count, before->worker[i].fault_count, seconds);
        double cpu = per_second(worker->cpu_us, before->worker[i].cpu_us, seconds);
        worker->busy = cpu < 0 ? cpu : cpu / 1e6;
    }
    return 0;
}

// --- all of it ---

static void take_totals(struct top_model *next, const struct top_model *before, double seconds)
{
    const json_t *now = next->status;
    const json_t *then = before->status;
    next->faults = next->reads = next->hits = TOP_UNKNOWN;
    if (!then)
        return;
    next->faults = per_second((uint64_t)top_number(now, "faults", "read"),
                              (uint64_t)top_number(then, "faults", "read"), seconds);
    next->reads = per_second((uint64_t)top_number(now, "cache", "reads"),
                             (uint64_t)top_number(then, "cache", "reads"), seconds);
    long long hits = top_number(now, "cache", "hits") - top_number(then, "cache", "hits");
    long long misses = top_number(now, "cache", "misses") - top_number(then, "cache", "misses");
    if (hits >= 0 && misses >= 0 && hits + misses > 0)
        next->hits = (double)hits / (double)(hits + misses);
}

int top_model_take(struct top_model *model, json_t *status, uint64_t now_ns)
{
    struct top_model next = {
        .status = status, .now_ns = now_ns, .engine = top_number(status, "", "pid")};
    double seconds = model->status ? (double)(now_ns - model->now_ns) / 1e9 : 0;
    if (take_vms(&next, model, seconds) != 0 || take_images(&next, model, seconds) != 0 ||
        take_workers(&next, model, seconds) != 0) {
        next.status = NULL;
        top_model_clear(&next);
        return -ENOMEM;
    }
    take_totals(&next, model, seconds);
    json_incref(status);
    top_model_clear(model);
    *model = next;
    return 0;
}

void top_model_clear(struct top_model *model)
{
    json_decref(model->status);
    free(model->vm);
    free(model->image);
    free(model->worker);
    *model = (struct top_model){0};
}

// --- sorting ---

static double weight(const struct top_vm *vm, enum top_sort sort)
{
    switch (sort) {
    case TOP_BY_FAULTS:
        return vm->faults;
    case TOP_BY_LATENCY:
        return vm->average_us;
    case TOP_BY_WAITING:
        return (double)vm->waiting;
    case TOP_BY_REPLAY: // those that are under way, the least advanced first
        return strcmp(vm->replay, "running") == 0 || strcmp(vm->replay, "paused") == 0
                   ? 2 - vm->replayed
                   : 0;
    case TOP_BY_MEMORY:
        return (double)vm->present;
    case TOP_BY_ID:
    case TOP_SORTS:
        break;
    }
    return 0;
}

static int compare_vms(const void *left, const void *right, void *arg)
{
    enum top_sort sort = *(const enum top_sort *)arg;
    double a = weight(left, sort);
    double b = weight(right, sort);
    if (a > b || a < b)
        return a > b ? -1 : 1;
    return compare_ids(left, right);
}

static int compare_images(const void *left, const void *right)
{
    const struct top_image *a = left;
    const struct top_image *b = right;
    if (a->faults > b->faults || a->faults < b->faults)
        return a->faults > b->faults ? -1 : 1;
    if (a->vms != b->vms)
        return a->vms > b->vms ? -1 : 1;
    return strcmp(a->image, b->image);
}

void top_model_sort(struct top_model *model, enum top_sort sort)
{
    if (model->vms > 0)
        qsort_r(model->vm, model->vms, sizeof(*model->vm), compare_vms, &sort);
    if (model->images > 0)
        qsort(model->image, model->images, sizeof(*model->image), compare_images);
}
