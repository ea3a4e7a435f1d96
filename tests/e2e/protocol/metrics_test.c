// SPDX-License-Identifier: Apache-2.0
//
// GET /metrics of a server that works: Prometheus's own checker finds nothing, and the numbers are
// those of what was done.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/metrics.h"
#include "tests/support/stop.h"

TestSuite(metrics, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

enum { IMAGE_BYTES = 4 << 20, PAGES = IMAGE_BYTES / PAGE };

static struct world *world;
static struct http_answer answer;

static void begin(void)
{
    static const char *const options[] = {"--workers", "2", NULL};
    world = world_make(DISTINCT, IMAGE_BYTES);
    world_serve(world, options);
}

static void scrape(void)
{
    metrics_scrape(world, &answer);
}

static double value(const char *series)
{
    return metrics_value(&answer, series);
}

static double value_of(const char *metric, const char *label, const char *of)
{
    return metrics_value_of(&answer, metric, label, of);
}

static bool program_exists(const char *program)
{
    char command[64];
    snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
    return system(command) == 0; // NOLINT(cert-env33-c)
}

static void need_promtool(void)
{
    if (program_exists("promtool"))
        return;
    const char *ci = getenv("CI");
    cr_assert_not(ci != NULL && strcmp(ci, "true") == 0, "CI has no promtool");
    cr_skip("SKIP: there is no promtool (package prometheus)\n");
}

// What promtool says of the last scrape: nothing, if all is well.
static void check_with_promtool(void)
{
    char said[2048] = "";
    const char *file = temp_path(&world->temp, "metrics.txt");
    char command[2 * TEST_PATH];
    FILE *out = fopen(file, "we");
    cr_assert(out != NULL && fputs(answer.body, out) >= 0 && fclose(out) == 0);
    snprintf(command, sizeof(command), "promtool check metrics <%s 2>&1", file);
    FILE *promtool = popen(command, "re"); // NOLINT(cert-env33-c)
    cr_assert_not_null(promtool);
    size_t got = fread(said, 1, sizeof(said) - 1, promtool);
    int status = pclose(promtool);
    cr_assert(status == 0 && got == 0, "promtool: status %d: %s", status, said);
}

Test(metrics, are_clean_for_promtool_while_a_vm_is_served)
{
    struct good good;
    begin();
    need_promtool();
    good_start(&good, world->socket, &world->memory);
    for (unsigned i = 0; i < 8; i++) {
        cr_assert(good_touch(&good, PAGES / 8));
        scrape();
        check_with_promtool();
    }
    cr_assert_eq(good_end(&good), 0);
    scrape();
    check_with_promtool();
    world_stop(world);
}

// --- histograms ---

static double stage_count(const char *stage)
{
    return value_of("fault_duration_seconds_count", "stage", stage);
}

// Each bucket has what the one before it has, and the last one all.
static void check_buckets(const char *stage)
{
    char start[128];
    double before = 0;
    unsigned buckets = 0;
    snprintf(start, sizeof(start), "\nfaultline_fault_duration_seconds_bucket{stage=\"%s\",le=\"",
             stage);
    for (const char *at = answer.body; (at = strstr(at, start)) != NULL; buckets++) {
        at += strlen(start);
        double count = strtod(strchr(at, '}') + 1, NULL);
        cr_assert_geq(count, before, "%s", stage);
        before = count;
        if (strncmp(at, "+Inf", 4) == 0)
            cr_assert_eq(count, stage_count(stage));
    }
    cr_assert_eq(buckets, 26, "%s has %u buckets", stage, buckets);
    cr_assert_geq(value_of("fault_duration_seconds_sum", "stage", stage), 0);
}

Test(metrics, every_fault_is_in_the_histogram_of_its_stage)
{
    struct good good;
    begin();
    scrape();
    cr_assert_eq(stage_count("cached") + stage_count("read") + stage_count("replay"), 0);
    good_start(&good, world->socket, &world->memory);
    cr_assert_eq(good_end(&good), 0);
    scrape();
    double ended =
        value("faultline_faults_installed_total") + value("faultline_faults_zeroed_total");
    cr_assert_gt(ended, 0);
    cr_assert_eq(stage_count("cached") + stage_count("read") + stage_count("replay"), ended);
    cr_assert_gt(stage_count("read"), 0, "nothing was read");
    cr_assert_gt(stage_count("cached"), 0, "nothing was cached");
    cr_assert_eq(stage_count("replay"), 0, "there is no trace");
    check_buckets("cached");
    check_buckets("read");
    check_buckets("replay");
    cr_assert_gt(value_of("fault_duration_seconds_sum", "stage", "read"), 0);
    world_stop(world);
}

// --- images ---

static bool vms_are(void *arg)
{
    scrape();
    return value_of("image_vms", "image", "image") == *(double *)arg;
}

Test(metrics, tell_images_apart)
{
    struct good good;
    struct good second;
    struct memory memory;
    char socket[2 * TEST_PATH];
    double none = 0;
    begin();
    world_add_image(world, "second", IMAGE_BYTES / 2, &memory, socket);
    good_start(&good, world->socket, &world->memory);
    good_start(&second, socket, &memory);
    cr_assert_eq(good_end(&second), 0);
    scrape();
    cr_assert_eq(value_of("image_vms", "image", "image"), 1);
    cr_assert_eq(value_of("image_vms_attached_total", "image", "image"), 1);
    cr_assert_eq(value_of("image_vms_attached_total", "image", "second"), 1);
    double faults = value_of("image_faults_total", "image", "second");
    cr_assert_gt(faults, 0);
    cr_assert_eq(good_end(&good), 0);
    cr_assert(wait_until(vms_are, &none), "%s", answer.body);
    // What VMs that have gone did stays.
    cr_assert_eq(value_of("image_faults_total", "image", "second"), faults);
    cr_assert_eq(value_of("image_faults_total", "image", "image") +
                     value_of("image_faults_total", "image", "second"),
                 value("faultline_faults_read_total"));
    cr_assert_eq(value_of("image_vms", "image", "other"), 0);
    memory_free(&memory);
    world_stop(world);
}

// --- the host ---

static bool store_is_known(void *arg)
{
    (void)arg;
    scrape();
    return value("faultline_store_bytes") > 0;
}

Test(metrics, tell_of_the_store_and_of_both_processes)
{
    begin();
    cr_assert(wait_until(store_is_known, NULL), "%s", answer.body);
    cr_assert_gt(value("faultline_store_bytes"), IMAGE_BYTES / 2);
    cr_assert_gt(value("faultline_store_free_bytes"), 0);
    cr_assert_geq(value("faultline_store_size_bytes"), value("faultline_store_free_bytes"));
    cr_assert_geq(value("faultline_store_look_age_seconds"), 0);
    cr_assert_geq(value("process_cpu_seconds_total"), 0);
    cr_assert_gt(value("process_resident_memory_bytes"), 1 << 20);
    cr_assert_gt(value("process_virtual_memory_bytes"), value("process_resident_memory_bytes"));
    cr_assert_gt(value("process_open_fds"), 3);
    cr_assert_gt(value("process_max_fds"), value("process_open_fds"));
    cr_assert_gt(value("process_start_time_seconds"), 1.7e9);
    cr_assert_gt(value("faultline_keeper_process_resident_memory_bytes"), 1 << 19);
    cr_assert_gt(value("faultline_keeper_process_open_fds"), 3);
    cr_assert_leq(value("faultline_keeper_process_start_time_seconds"),
                  value("process_start_time_seconds"));
    cr_assert_eq(value("faultline_keeper_stopped"), 0);
    cr_assert_not_null(strstr(answer.body, "\nfaultline_build_info{version=\""));
    world_stop(world);
}

// --- a keeper that is stopped ---

static int late_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    tell_test(channel, 'a');
    vmm_touch_all(&vmm, 1, VMM_UP, true);
    return 0;
}

static bool keeper_is(void *stopped)
{
    scrape();
    double wanted = *(bool *)stopped;
    return value("faultline_keeper_stopped") == wanted &&
           value_of("degraded", "what", "keeper") == wanted;
}

// VMs are served on, and no answer is waited for that does not come.
Test(metrics, tell_of_a_keeper_that_is_stopped)
{
    struct good good;
    struct client late;
    char output[1024];
    bool stopped = true;
    begin();
    const char *args[] = {"upgrade", "--control", temp_path(&world->temp, "control.sock"), NULL};
    good_start(&good, world->socket, &world->memory);
    cr_assert(wait_until(keeper_is, &(bool){false}));
    cr_assert(process_stop(world->server.pid));
    cr_assert(wait_until(keeper_is, &stopped), "%s", answer.body);
    cr_assert(good_touch(&good, PAGES / 8));
    client_start(&late, late_main, NULL);
    cr_assert(client_says(&late, 'a')); // it waits in the queue
    cr_assert(good_touch(&good, PAGES / 8));
    scrape();
    cr_assert_eq(value("faultline_vms"), 1);
    cr_assert_eq(faultline_run(output, sizeof(output), args), 1, "%s", output);
    cr_assert_not_null(strstr(output, "is stopped"), "%s", output);
    cr_assert_not_null(strstr(output, "kill -CONT"), "%s", output);
    scrape();
    cr_assert_eq(kill(world->server.pid, SIGCONT), 0);
    cr_assert_eq(client_wait(&late), 0);
    stopped = false;
    cr_assert(wait_until(keeper_is, &stopped), "%s", answer.body);
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}
