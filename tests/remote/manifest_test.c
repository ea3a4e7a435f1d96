// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/manifest.h"

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define KEY "data/" SHA ".fedcba9876543210"
#define FILE_TEXT "{\"sha256\":\"" SHA "\",\"key\":\"" KEY "\",\"bytes\":7}"
#define HEAD                                                                                       \
    "{\"faultline-image\":1,\"name\":\"one\",\"content_id\":\"" SHA "\",\"bytes\":5,\"created\":"  \
    "3,"

static int parse(const char *text)
{
    struct fl_manifest manifest;
    int r = fl_manifest_parse(text, strlen(text), "one", &manifest);
    if (r == 0)
        fl_manifest_free(&manifest);
    return r;
}

Test(manifest, there_and_back)
{
    const char *text =
        HEAD "\"map\":" FILE_TEXT ",\"trace\":" FILE_TEXT ",\"packs\":[{\"sha256\":\"" SHA
             "\",\"key\":\"" KEY "\",\"bytes\":9,\"id\":\"00000000000000ff\"}]}";
    struct fl_manifest manifest;
    char *again = NULL;
    cr_assert_eq(fl_manifest_parse(text, strlen(text), "one", &manifest), 0);
    cr_expect_eq(manifest.packs[0].id, 255);
    cr_expect_eq(manifest.packs[0].file.bytes, 9);
    cr_assert_eq(fl_manifest_print(&manifest, &again), 0);
    cr_expect_str_eq(again, text);
    free(again);
    fl_manifest_free(&manifest);
}

Test(manifest, what_is_wrong)
{
    const char *good = HEAD "\"map\":" FILE_TEXT ",\"packs\":[]}";
    cr_expect_eq(parse(good), 0);
    cr_expect_eq(parse("{\"faultline-image\":1,\"name\":\"one\",\"removed\":true}"), 0);
    cr_expect_eq(parse("{\"faultline-image\":2,\"name\":\"one\"}"), -EPROTONOSUPPORT);
    static const char *const wrong[] = {
        "",
        "[]",
        "{\"faultline-image\":1,\"name\":\"two\",\"removed\":true}",
        "{\"faultline-image\":1,\"name\":\"one\"}",
        HEAD "\"packs\":[]}",
        HEAD "\"map\":" FILE_TEXT "}",
        HEAD "\"map\":" FILE_TEXT ",\"trace\":7,\"packs\":[]}",
        HEAD "\"map\":" FILE_TEXT ",\"packs\":[7]}",
        HEAD "\"map\":" FILE_TEXT ",\"packs\":[" FILE_TEXT "]}",
        HEAD "\"map\":{\"sha256\":\"" SHA "\",\"key\":\"data/x\",\"bytes\":7},\"packs\":[]}",
        HEAD "\"map\":{\"sha256\":\"" SHA "\",\"key\":\"" KEY "\",\"bytes\":0},\"packs\":[]}",
        HEAD "\"map\":{\"sha256\":\"" SHA "\",\"key\":\"" KEY "\",\"bytes\":-1},\"packs\":[]}",
        HEAD "\"map\":{\"sha256\":\"x\",\"key\":\"" KEY "\",\"bytes\":1},\"packs\":[]}",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_expect_eq(parse(wrong[i]), -EBADMSG, "%s", wrong[i]);
}

Test(manifest, keys)
{
    cr_expect(fl_data_key_valid(KEY));
    cr_expect(!fl_data_key_valid("data/" SHA));
    cr_expect(!fl_data_key_valid("data/" SHA ".fedcba987654321G"));
    cr_expect(!fl_data_key_valid("date/" SHA ".fedcba9876543210"));
    cr_expect(!fl_data_key_valid(KEY "0"));
}
