// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A VM is counted in one row from its beginning to its end (vm->image_row),
// whatever becomes of the row's image: else a row would lose what the VM has done. So an image gets
// a row only while no VM of it is counted among the others, and loses it only while it has none.
//
// The table may outlive the engine. A VM goes in two steps, its counts to the row, and then its
// flag: an engine that dies between the two has counted it twice, and never too little.
#include "engine/vm/image_counts.h"

#include <stdio.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/vm/vm.h"
#include "engine/vm/vms.h"

void fl_image_counting_init(struct fl_image_counting *counting, struct fl_image_table *table,
                            const struct fl_vms *vms)
{
    *counting = (struct fl_image_counting){.table = table, .vms = vms};
    snprintf(table->row[FL_IMAGE_OTHERS].name, FL_IMAGE_NAME_BYTES, FL_IMAGE_OTHERS_NAME);
}

// --- rows ---

static void counts_add(struct fl_image_counts *to, const struct fl_image_counts *more)
{
    fl_counter_add(&to->attached, fl_counter_get(&more->attached));
    fl_counter_add(&to->refused, fl_counter_get(&more->refused));
    fl_counter_add(&to->faults, fl_counter_get(&more->faults));
    fl_counter_add(&to->late, fl_counter_get(&more->late));
    fl_counter_add(&to->poisoned, fl_counter_get(&more->poisoned));
}

struct users {
    const char *image;
    unsigned row;
    bool any; // VMs of the image, or in the row
};

static void vm_is_in_row(void *arg, const struct fl_vm *vm)
{
    struct users *users = arg;
    users->any = users->any || vm->image_row == users->row + 1;
}

static void vm_is_of_image(void *arg, const struct fl_vm *vm)
{
    struct users *users = arg;
    users->any = users->any || (vm->image_row != 0 && strcmp(vm->state->image, users->image) == 0);
}

static bool row_is_over(const struct fl_image_counting *counting, unsigned row)
{
    const char *name = counting->table->row[row].name;
    struct users users = {.row = row};
    if (!counting->exists || counting->exists(counting->arg, name))
        return false;
    fl_vms_each(counting->vms, vm_is_in_row, &users);
    return !users.any;
}

static void add_carried(struct fl_image_counts *to, const struct fl_image_counting *counting,
                        unsigned row)
{
    fl_counter *series = (fl_counter *)to;
    for (unsigned i = 0; i < FL_IMAGE_SERIES; i++) {
        if (counting->carried[i])
            fl_counter_add(&series[i], fl_counter_get(&counting->carried[i][row]));
    }
}

// Its name goes last: until then its counts may be there twice, and never not at all.
static void row_clear(struct fl_image_counting *counting, unsigned row)
{
    struct fl_image_table *table = counting->table;
    counts_add(&table->row[FL_IMAGE_OTHERS].counts, &table->row[row].counts);
    add_carried(&table->row[FL_IMAGE_OTHERS].counts, counting, row);
    memset((void *)&table->row[row].counts, 0, sizeof(table->row[row].counts));
    for (unsigned i = 0; i < FL_IMAGE_SERIES; i++) {
        if (counting->carried[i])
            fl_counter_set(&counting->carried[i][row], 0);
    }
    table->row[row].name[0] = '\0';
}

static unsigned find_free_row(struct fl_image_counting *counting, bool may_clear)
{
    struct fl_image_table *table = counting->table;
    for (unsigned i = 0; i < FL_IMAGE_ROWS; i++) {
        if (table->row[i].name[0] == '\0')
            return i;
    }
    for (unsigned i = 0; i < FL_IMAGE_ROWS && may_clear; i++) {
        if (row_is_over(counting, i)) {
            row_clear(counting, i);
            return i;
        }
    }
    return FL_IMAGE_OTHERS;
}

static unsigned find_row(struct fl_image_counting *counting, const char *image, bool may_clear)
{
    struct fl_image_table *table = counting->table;
    struct users users = {.image = image};
    for (unsigned i = 0; i < FL_IMAGE_ROWS_ALL; i++) {
        if (strcmp(table->row[i].name, image) == 0)
            return i;
    }
    fl_vms_each(counting->vms, vm_is_of_image, &users); // then they are among the others
    if (users.any)
        return FL_IMAGE_OTHERS;
    unsigned row = find_free_row(counting, may_clear);
    if (row != FL_IMAGE_OTHERS)
        snprintf(table->row[row].name, FL_IMAGE_NAME_BYTES, "%s", image);
    return row;
}

// A VM of a predecessor: its image has the row that it had there, or it is among the others.
static unsigned row_of(struct fl_image_counting *counting, struct fl_vm *vm)
{
    if (vm->image_row == 0)
        vm->image_row = 1 + find_row(counting, vm->state->image, false);
    return vm->image_row - 1;
}

// --- counting ---

static bool has_image(const struct fl_vm *vm)
{
    return vm->state->image[0] != '\0' && !fl_vm_refused(vm);
}

void fl_image_count_attached(struct fl_image_counting *counting, struct fl_vm *vm)
{
    vm->image_row = 1 + find_row(counting, vm->state->image, true);
    fl_counter_add(&counting->table->row[vm->image_row - 1].counts.attached, 1);
}

void fl_image_count_refused(struct fl_image_counting *counting, const char *image)
{
    if (image[0] == '\0' || strcmp(image, "-") == 0)
        return;
    fl_counter_add(&counting->table->row[find_row(counting, image, true)].counts.refused, 1);
}

static void add_vm(struct fl_image_counts *to, const struct fl_vm *vm)
{
    const struct fl_vm_counters *counters = &vm->state->counters;
    if (vm->state->flags & FL_VM_STATE_COUNTED)
        return;
    fl_counter_add(&to->faults, fl_counter_get(&counters->faults));
    fl_counter_add(&to->late, fl_counter_get(&fl_vm_filling(vm->state)->late));
    fl_counter_add(&to->poisoned, fl_counter_get(&counters->poisoned));
}

void fl_image_count_gone(struct fl_image_counting *counting, struct fl_vm *vm)
{
    if (!has_image(vm))
        return;
    add_vm(&counting->table->row[row_of(counting, vm)].counts, vm);
    vm->state->flags |= FL_VM_STATE_COUNTED;
}

// --- showing ---

struct showing {
    struct fl_image_counting *counting;
    struct fl_image_shown *shown;
};

static void show_vm(void *arg, const struct fl_vm *constant)
{
    struct showing *showing = arg;
    struct fl_vm *vm = caa_container_of(&constant->in_table, struct fl_vm, in_table);
    if (!has_image(vm))
        return;
    struct fl_image_shown *shown = &showing->shown[row_of(showing->counting, vm)];
    shown->vms++;
    add_vm(&shown->counts, vm);
}

void fl_image_counts_show(struct fl_image_counting *counting,
                          struct fl_image_shown ret_shown[FL_IMAGE_ROWS_ALL])
{
    struct showing showing = {.counting = counting, .shown = ret_shown};
    memset((void *)ret_shown, 0, FL_IMAGE_ROWS_ALL * sizeof(*ret_shown));
    fl_vms_each(counting->vms, show_vm, &showing);
    for (unsigned i = 0; i < FL_IMAGE_ROWS_ALL; i++) {
        ret_shown[i].name = counting->table->row[i].name;
        counts_add(&ret_shown[i].counts, &counting->table->row[i].counts);
        add_carried(&ret_shown[i].counts, counting, i);
    }
}
