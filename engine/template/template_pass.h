// SPDX-License-Identifier: Apache-2.0
//
// Going through a template in a reader thread, a slice at a time, behind whatever else there is to
// read: to fill what is missing and seal it, or to look at pages that a client may have made.
#ifndef FAULTLINE_TEMPLATE_TEMPLATE_PASS_H
#define FAULTLINE_TEMPLATE_TEMPLATE_PASS_H

#include "engine/template/template.h"

// Control thread. Sends a reader through it, for a template that no reader goes through. done() is
// called in the control thread, with template->pass.mail; then pass.error says how it ended.
void fl_template_pass_start(struct fl_template *template, enum fl_template_goal goal,
                            void (*done)(void *control, struct fl_mail *mail));

#endif
