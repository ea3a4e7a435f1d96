// SPDX-License-Identifier: Apache-2.0
//
// What is being done with a template. Its owner, the control thread, alone changes it, in
// template_life.c.
#ifndef FAULTLINE_TEMPLATE_TEMPLATE_STAGE_H
#define FAULTLINE_TEMPLATE_TEMPLATE_STAGE_H

#include "engine/base/states.h"

// The moves:
//
//   RESTING         > CHECKING         a client may have made pages, and a VM is to map it
//   RESTING         > FILLING          all of it was asked for
//   CHECKING        > CHECKING_FIRST   all of it was asked for meanwhile
//   CHECKING        > RESTING          the reader's mail is back
//   CHECKING_FIRST  > RESTING          likewise; FILLING follows at once
//   FILLING         > RESTING          likewise
//   RESTING         > GONE             nothing needs it: it leaves the table
//
// A reader is told to end when nothing needs the template any more; that changes nothing here. If
// the template is needed again before that reader's mail is back, a reader goes through it anew, in
// the same stage.
enum fl_template_stage {
    FL_TEMPLATE_RESTING,        // no reader goes through it
    FL_TEMPLATE_CHECKING,       // a reader looks at pages that a client may have made
    FL_TEMPLATE_CHECKING_FIRST, // the same, and all of it is to be filled after that
    FL_TEMPLATE_FILLING,        // a reader fills all of it, looks at such pages, too, and seals it
    FL_TEMPLATE_GONE,           // a reader frees it
    FL_TEMPLATE_STAGES,
};

extern const struct fl_states fl_template_stages;

#endif
