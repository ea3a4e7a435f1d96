// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/host/process_usage.h"

TestSuite(process_usage, .timeout = 30);

Test(process_usage, of_this_process)
{
    struct fl_process_usage usage;
    // What stands in parentheses may have any character.
    prctl(PR_SET_NAME, ") S 1 (x");
    cr_assert_eq(fl_process_usage(getpid(), &usage), 0);
    cr_assert_eq(usage.state, 'R');
    cr_assert_gt(usage.resident, 1 << 16);
    cr_assert_gt(usage.virtual, usage.resident);
    cr_assert_gt(usage.descriptors, 2);
    cr_assert_gt(usage.limit, usage.descriptors);
    uint64_t now = (uint64_t)time(NULL) * FL_NS_PER_S;
    cr_assert(usage.started_ns > now - 60 * FL_NS_PER_S && usage.started_ns <= now + FL_NS_PER_S);
}

Test(process_usage, of_a_stopped_one_and_of_none)
{
    struct fl_process_usage usage;
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
    cr_assert_eq(fl_process_usage(child, &usage), 0);
    cr_assert_eq(usage.state, 'T');
    kill(child, SIGKILL);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_lt(fl_process_usage(child, &usage), 0);
}
