// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/vms.h"

#include <errno.h>

#include <urcu/compiler.h>

#include "engine/vm/vm.h"

enum { VMS_AT_START = 64 };

int fl_vms_init(struct fl_vms *vms)
{
    vms->count = 0;
    vms->next_id = 1;
    vms->table = cds_lfht_new(VMS_AT_START, VMS_AT_START, 0, CDS_LFHT_AUTO_RESIZE, NULL);
    return vms->table ? 0 : -ENOMEM;
}

void fl_vms_fini(struct fl_vms *vms)
{
    if (vms->table)
        cds_lfht_destroy(vms->table, NULL);
    vms->table = NULL;
}

static unsigned long vms_hash(uint64_t id)
{
    return id * 0x9e3779b97f4a7c15ULL >> 16;
}

void fl_vms_add(struct fl_vms *vms, struct fl_vm *vm)
{
    if (vms->next_id <= vm->id)
        vms->next_id = vm->id + 1;
    cds_lfht_node_init(&vm->in_table);
    FL_RCU_PUBLISH(&vm->in_table);
    cds_lfht_add(vms->table, vms_hash(vm->id), &vm->in_table);
    vms->count++;
}

void fl_vms_remove(struct fl_vms *vms, struct fl_vm *vm)
{
    cds_lfht_del(vms->table, &vm->in_table);
    vms->count--;
}

static int vm_has_id(struct cds_lfht_node *node, const void *key)
{
    FL_RCU_SEEN(node);
    return caa_container_of(node, struct fl_vm, in_table)->id == *(const uint64_t *)key;
}

struct fl_vm *fl_vms_find(const struct fl_vms *vms, uint64_t id)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(vms->table, vms_hash(id), vm_has_id, &id, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? caa_container_of(node, struct fl_vm, in_table) : NULL;
}

void fl_vms_each(const struct fl_vms *vms, void (*fn)(void *arg, const struct fl_vm *vm), void *arg)
{
    // By node: the macro that goes by entry computes one from the NULL at the end, which the
    // standard does not allow.
    struct cds_lfht_iter iter;
    struct cds_lfht_node *node;
    cds_lfht_for_each(vms->table, &iter, node)
    {
        FL_RCU_SEEN(node);
        fn(arg, caa_container_of(node, struct fl_vm, in_table));
    }
}
