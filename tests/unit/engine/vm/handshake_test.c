// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/vm/handshake.h"

static int parse(const char *text, struct fl_layout *layout, const char **reason)
{
    *reason = NULL;
    return fl_handshake_parse(text, strlen(text), layout, NULL, reason);
}

Test(handshake, finds_the_end_of_the_array)
{
    const char *text = " [{\"a]\\\"\": [1, {\"b\": 2}]}]rest";
    long length = fl_handshake_length(text, strlen(text));
    cr_assert_eq(length, (long)strlen(text) - 4);
    for (long cut = 0; cut < length; cut++)
        cr_assert_eq(fl_handshake_length(text, (size_t)cut), 0, "cut at %ld", cut);
    cr_assert_eq(fl_handshake_length("{\"a\":1}", 7), -EINVAL);
    cr_assert_eq(fl_handshake_length("GET / HTTP/1.1", 14), -EINVAL);
    cr_assert_eq(fl_handshake_length("\"", 1), -EINVAL);
}

struct version {
    char text[200];
    unsigned page_shift;
};

static const struct version versions[] = {
    {"[{\"base_host_virt_addr\":4194304,\"size\":2097152,\"offset\":0}]", 12},
    {"[{\"base_host_virt_addr\":4194304,\"size\":2097152,\"offset\":0,\"page_size_kib\":4096}]",
     12},
    {"[{\"base_host_virt_addr\":4194304,\"size\":2097152,\"offset\":0,\"page_size_kib\":2097152}]",
     21},
    {"[{\"base_host_virt_addr\":4194304,\"size\":2097152,\"offset\":0,\"page_size\":2097152,"
     "\"page_size_kib\":2097152,\"later\":[null]}]",
     21},
};

Test(handshake, takes_every_version)
{
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        struct fl_layout layout;
        const char *reason;
        cr_assert_eq(parse(versions[i].text, &layout, &reason), 0, "%s", versions[i].text);
        cr_assert_eq(layout.page_shift, versions[i].page_shift);
        cr_assert_eq(layout.region[0].base, 4194304);
        cr_assert_eq(layout.region[0].bytes, 2097152);
    }
}

static const char bad[][160] = {
    "[]",
    "[1]",
    "[{}]",
    "[[]]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096}]",
    "[{\"base_host_virt_addr\":4096,\"size\":-4096,\"offset\":0}]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096.0,\"offset\":0}]",
    "[{\"base_host_virt_addr\":\"4096\",\"size\":4096,\"offset\":0}]",
    "[{\"base_host_virt_addr\":4096,\"size\":99999999999999999999,\"offset\":0}]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0,\"page_size\":8192}]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0,\"page_size\":\"4096\"}]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096,\"size\":8192,\"offset\":0}]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0},]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0},{\"base_host_virt_addr\":2097152,"
    "\"size\":2097152,"
    "\"offset\":2097152,\"page_size\":2097152}]",
};

Test(handshake, refuses_with_a_reason)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct fl_layout layout;
        const char *reason;
        cr_assert_eq(parse(bad[i], &layout, &reason), -EINVAL, "%s", bad[i]);
        cr_assert_not_null(reason, "%s", bad[i]);
    }
}

Test(handshake, takes_64_regions_and_no_more)
{
    for (unsigned regions = FL_REGIONS_MAX; regions <= FL_REGIONS_MAX + 1; regions++) {
        static char text[16384];
        struct fl_layout layout;
        const char *reason;
        size_t used = 0;
        for (unsigned i = 0; i < regions; i++)
            used += (size_t)snprintf(text + used, sizeof(text) - used,
                                     "%c{\"base_host_virt_addr\":%u,\"size\":4096,\"offset\":%u}",
                                     i ? ',' : '[', (i + 1) * 4096, i * 4096);
        snprintf(text + used, sizeof(text) - used, "]");
        cr_assert_eq(parse(text, &layout, &reason), regions == FL_REGIONS_MAX ? 0 : -EINVAL);
    }
}
