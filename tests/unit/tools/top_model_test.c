// SPDX-License-Identifier: Apache-2.0
//
// What `faultline top` makes of two answers of a server.
#include <criterion/criterion.h>
#include <string.h>

#include "engine/base/clock.h"
#include "tools/top/format.h"
#include "tools/top/model.h"

static struct top_model model;

static void take(const char *text, uint64_t seconds)
{
    json_error_t error;
    json_t *status = json_loads(text, 0, &error);
    cr_assert_not_null(status, "%s at %d", error.text, error.position);
    cr_assert_eq(top_model_take(&model, status, seconds * FL_NS_PER_S), 0);
    json_decref(status);
}

static void clear(void)
{
    top_model_clear(&model);
}

TestSuite(top_model, .fini = clear);

#define VM(ID, IMAGE, FAULTS, ANSWERED, US, WAITING)                                               \
    "{\"id\":" #ID ",\"image\":\"" IMAGE "\",\"pid\":4" #ID                                        \
    ",\"state\":\"serving\",\"pages\":1024,\"installed\":256,\"zeroed\":0,\"faults\":" #FAULTS     \
    ",\"lacking_ms\":0,\"lane\":null,\"waits\":{\"now\":" #WAITING ",\"answered\":" #ANSWERED      \
    ",\"us\":" #US ",\"most_us\":77},\"replay\":{\"state\":\"running\",\"total\":100,"             \
    "\"pages\":" #ID "0,\"late\":0,\"us\":0}}"
#define STATUS(PID, READ, VMS)                                                                     \
    "{\"pid\":" #PID ",\"faults\":{\"read\":" #READ "},\"cache\":{\"reads\":10,\"hits\":" #READ    \
    ",\"misses\":0},\"vm_list\":[" VMS                                                             \
    "],\"image_list\":[{\"image\":\"a\",\"vms\":2,\"attached\":3,\"faults\":" #READ                \
    ",\"late\":0}],\"worker_list\":[{\"vms\":2,\"faults\":" #READ                                  \
    ",\"parked\":1,\"cpu_us\":" #READ "}]}"

Test(top_model, has_no_rates_after_one_answer)
{
    take(STATUS(9, 100, VM(1, "a", 100, 90, 900, 3)), 1);
    cr_expect_eq(model.vms, 1);
    cr_expect_lt(model.vm[0].faults, 0);
    cr_expect_lt(model.vm[0].average_us, 0);
    cr_expect_lt(model.faults, 0);
    cr_expect_lt(model.worker[0].busy, 0);
    cr_expect_eq(model.vm[0].waiting, 3);
    cr_expect_eq(model.vm[0].present, 1 << 20);
}

Test(top_model, has_rates_over_the_time_between_two)
{
    take(STATUS(9, 1000000, VM(1, "a", 100, 90, 900, 3) "," VM(2, "b", 0, 0, 0, 0)), 1);
    take(STATUS(9, 2000000, VM(2, "b", 0, 0, 0, 0) "," VM(1, "a", 300, 190, 4900, 0)), 3);
    top_model_sort(&model, TOP_BY_FAULTS);
    cr_expect_eq(model.vm[0].id, 1);
    cr_expect_float_eq(model.vm[0].faults, 100, 1e-9);
    cr_expect_float_eq(model.vm[0].average_us, 40, 1e-9);
    cr_expect_float_eq(model.vm[1].faults, 0, 1e-9);
    cr_expect_lt(model.vm[1].average_us, 0, "no fault ended: there is no average");
    cr_expect_float_eq(model.average_us, 40, 1e-9);
    cr_expect_float_eq(model.faults, 500000, 1e-6);
    cr_expect_float_eq(model.hits, 1, 1e-9);
    cr_expect_float_eq(model.worker[0].busy, 0.5, 1e-9);
    cr_expect_float_eq(model.image[0].faults, 500000, 1e-6);
}

// What belongs to an engine begins anew with its successor; no rate may be negative or absurd.
Test(top_model, has_no_rate_of_what_began_anew)
{
    take(STATUS(9, 1000, VM(1, "a", 100, 90, 900, 0)), 1);
    take(STATUS(10, 50, VM(1, "a", 120, 5, 40, 0)), 2);
    cr_expect_float_eq(model.vm[0].faults, 20, 1e-9);
    cr_expect_lt(model.vm[0].average_us, 0);
    cr_expect_lt(model.worker[0].busy, 0);
    cr_expect_lt(model.worker[0].faults, 0);
    cr_expect_lt(model.faults, 0);
    cr_expect_lt(model.hits, 0);
}

Test(top_model, sorts_by_each_key)
{
    static const char vms[] =
        STATUS(9, 0, VM(1, "a", 0, 0, 0, 2) "," VM(2, "b", 0, 0, 0, 5) "," VM(3, "c", 0, 0, 0, 0));
    static const char later[] = STATUS(
        9, 0,
        VM(1, "a", 30, 1, 500, 2) "," VM(2, "b", 10, 10, 100, 5) "," VM(3, "c", 20, 2, 60, 0));
    static const uint64_t first[TOP_SORTS] = {
        [TOP_BY_FAULTS] = 1, [TOP_BY_LATENCY] = 1, [TOP_BY_WAITING] = 2,
        [TOP_BY_REPLAY] = 1, [TOP_BY_MEMORY] = 1,  [TOP_BY_ID] = 1};
    static const uint64_t last[TOP_SORTS] = {
        [TOP_BY_FAULTS] = 2, [TOP_BY_LATENCY] = 2, [TOP_BY_WAITING] = 3,
        [TOP_BY_REPLAY] = 3, [TOP_BY_MEMORY] = 3,  [TOP_BY_ID] = 3};
    take(vms, 1);
    take(later, 2);
    for (unsigned sort = 0; sort < TOP_SORTS; sort++) {
        top_model_sort(&model, sort);
        cr_expect_eq(model.vm[0].id, first[sort], "%s", top_sort_name[sort]);
        cr_expect_eq(model.vm[2].id, last[sort], "%s", top_sort_name[sort]);
    }
}

Test(top_model, filters_by_image_state_id_and_pid)
{
    take(STATUS(9, 0, VM(12, "web-front", 0, 0, 0, 0)), 1);
    cr_expect(top_vm_matches(&model.vm[0], ""));
    cr_expect(top_vm_matches(&model.vm[0], "front"));
    cr_expect(top_vm_matches(&model.vm[0], "serv"));
    cr_expect(top_vm_matches(&model.vm[0], "12"));
    cr_expect(top_vm_matches(&model.vm[0], "412"));
    cr_expect_not(top_vm_matches(&model.vm[0], "1"), "a part of a number says nothing");
    cr_expect_not(top_vm_matches(&model.vm[0], "db"));
}

// An older server's answer lacks fields; another program's may be anything.
Test(top_model, takes_any_answer)
{
    take("{}", 1);
    take("{\"vm_list\": [{}, 3, null], \"image_list\": 7, \"worker_list\": [[]]}", 2);
    cr_expect_eq(model.vms, 3);
    cr_expect_eq(model.images, 0);
    cr_expect_str_eq(model.vm[0].image, "-");
    top_model_sort(&model, TOP_BY_FAULTS);
}

Test(top_format, is_short)
{
    char buf[TOP_COLUMN];
    cr_expect_str_eq(top_us(-1, buf), "-");
    cr_expect_str_eq(top_us(9.4, buf), "9.4us");
    cr_expect_str_eq(top_us(999.4, buf), "999us");
    cr_expect_str_eq(top_us(1234, buf), "1.2ms");
    cr_expect_str_eq(top_us(3.4e6, buf), "3.4s");
    cr_expect_str_eq(top_rate(9999, buf), "9999");
    cr_expect_str_eq(top_rate(12345, buf), "12k");
    cr_expect_str_eq(top_rate(2.5e6, buf), "2.5M");
    cr_expect_str_eq(top_bytes(0, buf), "0.0K");
    cr_expect_str_eq(top_bytes(3UL << 30, buf), "3.0G");
    cr_expect_str_eq(top_bytes(1023UL << 20, buf), "1.0G");
    cr_expect_str_eq(top_share(0.973, buf), "97%");
    cr_expect_str_eq(top_seconds(59, buf), "0m 59s");
    cr_expect_str_eq(top_seconds(3 * 86400 + 4 * 3600, buf), "3d 4h");
}
