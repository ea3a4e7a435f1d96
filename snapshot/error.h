// SPDX-License-Identifier: Apache-2.0
//
// Why something failed, in one sentence that names the object. It is made at the edge, where the
// name is known, and handed up to the place that says it; the code of the failure is the -errno
// that is returned beside it. snapshot/, engine/ and tools/ give reasons in this way. Any thread.
#ifndef FAULTLINE_SNAPSHOT_ERROR_H
#define FAULTLINE_SNAPSHOT_ERROR_H

// Set by a call that fails; what it holds after one that did not is not defined.
struct fl_error {
    char text[512];
};

// Writes the sentence and ": REASON" of error, and returns error (negative errno). ret_error may be
// NULL. A sentence that is too long is cut.
__attribute__((format(printf, 3, 4))) int fl_fail(struct fl_error *ret_error, int error,
                                                  const char *format, ...);
// The same without a reason: the sentence says all.
__attribute__((format(printf, 3, 4))) int fl_fail_plain(struct fl_error *ret_error, int error,
                                                        const char *format, ...);

#endif
