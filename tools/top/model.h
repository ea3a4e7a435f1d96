// SPDX-License-Identifier: Apache-2.0
//
// What `faultline top` shows: rates and rows, from two answers of GET /v1/status. Knows no
// terminal. One thread.
#ifndef FAULTLINE_TOOLS_TOP_MODEL_H
#define FAULTLINE_TOOLS_TOP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

enum { TOP_NAME = 256, TOP_WORD = 16 };

// A value that is not known yet, as it takes two answers, or does not apply.
#define TOP_UNKNOWN (-1.0)

struct top_vm {
    uint64_t id;
    long long pid;
    char image[TOP_NAME];
    char state[TOP_WORD];
    uint64_t memory;  // bytes
    uint64_t present; // bytes
    double faults;    // a second
    double average_us;
    uint64_t most_us; // the longest, since this engine serves it
    uint64_t waiting; // faults
    char replay[TOP_WORD];
    double replayed;        // of its trace, 0 to 1
    char trouble[TOP_WORD]; // "", "memory" (none for its pages) or "lane" (it holds its thread up)
    // Of the answer, for the next one's rates.
    uint64_t fault_count;
    uint64_t answered;
    uint64_t wait_us;
};

struct top_image {
    char image[TOP_NAME];
    uint64_t vms;
    uint64_t attached;
    double faults; // a second
    double late;   // pages a second
    uint64_t refused;
    uint64_t poisoned;
    uint64_t fault_count;
    uint64_t late_count;
};

struct top_worker {
    uint64_t vms;
    uint64_t parked;
    double faults; // a second
    double busy;   // 0 to 1
    uint64_t fault_count;
    uint64_t cpu_us;
};

struct top_model {
    json_t *status; // the last answer; NULL: none yet
    long long engine;
    uint64_t now_ns;
    struct top_vm *vm;
    size_t vms;
    struct top_image *image;
    size_t images;
    struct top_worker *worker;
    size_t workers;
    // Of all VMs, in the last interval.
    double faults;     // a second
    double average_us; // of those that ended
    double reads;      // frames a second
    double hits;       // 0 to 1
};

enum top_sort {
    TOP_BY_FAULTS,
    TOP_BY_LATENCY,
    TOP_BY_WAITING,
    TOP_BY_REPLAY,
    TOP_BY_MEMORY,
    TOP_BY_ID,
    TOP_SORTS,
};
extern const char *const top_sort_name[TOP_SORTS];

// Takes the answer. Rates are over the time since the one before, if that is of the same engine:
// what begins anew with an engine has none then. Returns 0, or -ENOMEM, and the model is unchanged.
int top_model_take(struct top_model *model, json_t *status, uint64_t now_ns);
// Frees what the model holds.
void top_model_clear(struct top_model *model);
// The busiest (longest, most) first; equal ones by id.
void top_model_sort(struct top_model *model, enum top_sort sort);
// A part of its image's name or its state, or its whole id or pid; "" matches all.
bool top_vm_matches(const struct top_vm *vm, const char *filter);

// A number at a path of one or two keys; 0 if there is none.
long long top_number(const json_t *status, const char *object, const char *key);

#endif
