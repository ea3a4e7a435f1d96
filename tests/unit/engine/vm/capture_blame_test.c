// SPDX-License-Identifier: Apache-2.0
//
// Whose doing it was that a capture failed, by its error. An operator is alerted of a torn one, so
// that no error of a system call may be taken for that.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "engine/vm/capture_counts.h"

Test(capture_blame, by_error)
{
    static const struct {
        int error;
        enum fl_capture_blame blame;
    } known[] = {
        {-ECANCELED, FL_BLAME_CLIENT}, {-EPIPE, FL_BLAME_CLIENT},     {-EPROTO, FL_BLAME_CLIENT},
        {-ESRCH, FL_BLAME_VM},         {-EBUSY, FL_BLAME_VM},         {-ESHUTDOWN, FL_BLAME_ENGINE},
        {-ENOMEM, FL_BLAME_MEMORY},    {-ENOSPC, FL_BLAME_MEMORY},    {-EMFILE, FL_BLAME_MEMORY},
        {-EBADMSG, FL_BLAME_TORN},     {-EIO, FL_BLAME_KERNEL},       {-EFAULT, FL_BLAME_KERNEL},
        {-EACCES, FL_BLAME_KERNEL},    {-EHWPOISON, FL_BLAME_KERNEL},
    };
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        cr_assert_eq(fl_capture_blame_of(known[i].error), known[i].blame, "%d", known[i].error);
}

Test(capture_blame, of_nothing_else_that_it_is_torn)
{
    for (int error = 1; error < 4096; error++)
        cr_assert(error == EBADMSG || fl_capture_blame_of(-error) != FL_BLAME_TORN, "%d", error);
}

Test(capture_blame, each_has_a_name_of_its_own)
{
    for (int i = 0; i < FL_CAPTURE_BLAMES; i++) {
        cr_assert_not_null(fl_capture_blame_name((enum fl_capture_blame)i));
        for (int j = 0; j < i; j++)
            cr_assert_str_neq(fl_capture_blame_name((enum fl_capture_blame)i),
                              fl_capture_blame_name((enum fl_capture_blame)j));
    }
}
