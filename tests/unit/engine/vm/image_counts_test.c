// SPDX-License-Identifier: Apache-2.0
//
// The counts of images: bounded rows, none of which ever loses anything.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/vm/image_counts.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"

enum { MANY = 2 * FL_IMAGE_ROWS };

static struct fl_vms vms;
static struct fl_image_table table;
static struct fl_image_counting counting;
static struct fl_image_shown shown[FL_IMAGE_ROWS_ALL];
static const char *absent = "";

static bool exists(void *arg, const char *image)
{
    (void)arg;
    return strcmp(image, absent) != 0;
}

static void begin(void)
{
    rcu_register_thread();
    cr_assert_eq(fl_vms_init(&vms), 0);
    fl_image_counting_init(&counting, &table, &vms);
    counting.exists = exists;
}

TestSuite(image_counts, .init = begin, .timeout = 20);

static struct fl_vm *vm_of(uint64_t id, const char *image)
{
    struct fl_vm *vm = calloc(1, sizeof(*vm));
    struct fl_vm_state *state = calloc(1, sizeof(*state) + sizeof(struct fl_vm_filling));
    cr_assert(vm && state);
    vm->id = id;
    vm->state = state;
    snprintf(state->image, sizeof(state->image), "%s", image);
    return vm;
}

static struct fl_vm *attach(uint64_t id, const char *image)
{
    struct fl_vm *vm = vm_of(id, image);
    fl_image_count_attached(&counting, vm);
    fl_vms_add(&vms, vm);
    return vm;
}

static void detach(struct fl_vm *vm)
{
    fl_image_count_gone(&counting, vm);
    fl_vms_remove(&vms, vm);
    free(vm->state);
    free(vm);
}

static void does(struct fl_vm *vm, uint64_t faults)
{
    fl_counter_add(&vm->state->counters.faults, faults);
    fl_counter_add(&fl_vm_filling(vm->state)->late, 1);
}

// NULL: it has no row of its own.
static const struct fl_image_shown *show(const char *image)
{
    fl_image_counts_show(&counting, shown);
    for (unsigned i = 0; i < FL_IMAGE_ROWS_ALL; i++) {
        if (strcmp(shown[i].name, image) == 0)
            return &shown[i];
    }
    return NULL;
}

static uint64_t faults_of_all(void)
{
    uint64_t sum = 0;
    fl_image_counts_show(&counting, shown);
    for (unsigned i = 0; i < FL_IMAGE_ROWS_ALL; i++)
        sum += fl_counter_get(&shown[i].counts.faults);
    return sum;
}

Test(image_counts, keep_what_a_vm_did_when_it_has_gone)
{
    struct fl_vm *vm = attach(1, "a");
    does(vm, 7);
    cr_assert_eq(show("a")->vms, 1);
    cr_assert_eq(fl_counter_get(&show("a")->counts.faults), 7);
    fl_image_count_gone(&counting, vm); // an engine dies here: the VM is there, and counted
    cr_assert_eq(fl_counter_get(&show("a")->counts.faults), 7);
    detach(vm);
    cr_assert_eq(show("a")->vms, 0);
    cr_assert_eq(fl_counter_get(&show("a")->counts.faults), 7);
    cr_assert_eq(fl_counter_get(&show("a")->counts.late), 1);
    cr_assert_eq(fl_counter_get(&show("a")->counts.attached), 1);
}

Test(image_counts, are_of_a_bounded_number_of_images)
{
    char name[16];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "image-%u", i);
        does(attach(i + 1, name), 1);
        fl_image_count_refused(&counting, name);
    }
    cr_assert_not_null(show("image-0"));
    cr_assert_null(show("image-127"));
    cr_assert_eq(show(FL_IMAGE_OTHERS_NAME)->vms, MANY - FL_IMAGE_ROWS);
    cr_assert_eq(fl_counter_get(&show(FL_IMAGE_OTHERS_NAME)->counts.refused), MANY - FL_IMAGE_ROWS);
    cr_assert_eq(faults_of_all(), MANY);
}

Test(image_counts, give_a_row_to_another_image_when_its_own_is_gone)
{
    char name[16];
    struct fl_vm *first = attach(1, "image-0");
    does(first, 5);
    for (unsigned i = 1; i < FL_IMAGE_ROWS; i++) {
        snprintf(name, sizeof(name), "image-%u", i);
        attach(i + 1, name);
    }
    absent = "image-0";
    attach(MANY, "new"); // the first image has a VM still
    cr_assert_null(show("new"));
    cr_assert_eq(fl_counter_get(&show("image-0")->counts.faults), 5);
    detach(first);
    cr_assert_not_null(show("image-0"), "it keeps the row until another one needs it");
    attach(MANY + 1, "newer");
    cr_assert_null(show("image-0"));
    cr_assert_eq(show("newer")->vms, 1);
    cr_assert_eq(fl_counter_get(&show("newer")->counts.faults), 0);
    cr_assert_eq(fl_counter_get(&show(FL_IMAGE_OTHERS_NAME)->counts.faults), 5);
    // What is counted among the others stays there as long as it has VMs.
    absent = "image-1";
    attach(MANY + 2, "new");
    cr_assert_null(show("new"));
    cr_assert_eq(show(FL_IMAGE_OTHERS_NAME)->vms, 2);
}

Test(image_counts, find_the_row_of_a_vm_that_another_engine_served)
{
    struct fl_vm *vm = vm_of(1, "a");
    does(vm, 3);
    fl_vms_add(&vms, vm);
    cr_assert_eq(show("a")->vms, 1);
    cr_assert_eq(fl_counter_get(&show("a")->counts.faults), 3);
    cr_assert_eq(fl_counter_get(&show("a")->counts.attached), 0);
}

Test(image_counts, are_not_of_what_names_no_image)
{
    struct fl_vm *vm = vm_of(1, "");
    fl_vms_add(&vms, vm);
    fl_image_count_refused(&counting, "-");
    fl_image_count_refused(&counting, "");
    detach(vm);
    fl_image_counts_show(&counting, shown);
    for (unsigned i = 0; i < FL_IMAGE_ROWS; i++)
        cr_assert_str_empty(shown[i].name);
    attach(2, FL_IMAGE_OTHERS_NAME); // an image of that name has no row of its own
    cr_assert_eq(show(FL_IMAGE_OTHERS_NAME)->vms, 1);
    cr_assert_eq(table.row[FL_IMAGE_OTHERS].counts.attached, 1);
}
