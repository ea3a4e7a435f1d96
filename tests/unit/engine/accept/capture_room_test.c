// SPDX-License-Identifier: Apache-2.0
//
// The memory that captures may have for what is not packed yet: what one has is not promised twice.
#include <criterion/criterion.h>
#include <stdlib.h>

#include <urcu/list.h>

#include "engine/accept/capture_room.h"
#include "engine/accept/capture_session_state.h"
#include "engine/host/host_memory.h"
#include "engine/vm/options.h"
#include "snapshot/read.h"

#define MIB (1ULL << 20)

TestSuite(capture_room, .timeout = 30);

struct other {
    struct fl_capture_session session;
    struct fl_capture capture;
};

static void add(struct other *other, struct cds_list_head *sessions, uint64_t mib,
                enum fl_capture_phase phase)
{
    *other = (struct other){.session = {.phase = phase}};
    other->capture.ahead_units = mib * MIB >> FL_PAGE_SHIFT;
    other->session.capture = &other->capture;
    cds_list_add_tail(&other->session.link, sessions);
}

Test(capture_room, is_not_promised_twice)
{
    struct fl_engine_options options = fl_engine_defaults;
    static struct other other[3];
    CDS_LIST_HEAD(sessions);
    options.capture_bytes = 1024 * MIB;
    cr_assert_eq(fl_capture_room(&options, &sessions), 1024 * MIB);
    add(&other[0], &sessions, 700, FL_CAPTURE_FROZEN);
    cr_assert_eq(fl_capture_room(&options, &sessions), 324 * MIB);
    add(&other[1], &sessions, 500, FL_CAPTURE_KEPT); // all of it is packed
    cr_assert_eq(fl_capture_room(&options, &sessions), 324 * MIB);
    add(&other[2], &sessions, 324, FL_CAPTURE_ARMING);
    cr_assert_eq(fl_capture_room(&options, &sessions), 64 * MIB, "so much each of them has");
}

Test(capture_room, is_a_part_of_what_is_free)
{
    CDS_LIST_HEAD(sessions);
    uint64_t free_now = fl_host_memory_available();
    uint64_t room = fl_capture_room(&fl_engine_defaults, &sessions);
    cr_assert_gt(free_now, 0);
    cr_assert_geq(room, 64 * MIB);
    cr_assert(room == 64 * MIB || room < free_now / 2, "%llu of %llu", (unsigned long long)room,
              (unsigned long long)free_now);
}
