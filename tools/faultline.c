// SPDX-License-Identifier: Apache-2.0
//
// The `faultline` command: a table of its verbs, which drives dispatch and help.
#include "tools/cli/verb.h"
#include "tools/verbs/verbs.h"

static const struct verb verbs[] = {
    {"pack", cmd_pack, "add a guest memory file to a store as an image"},
    {"unpack", cmd_unpack, "write an image back as a memory file"},
    {"verify", cmd_verify, "check every byte of a store against its checksums"},
    {"repair", cmd_repair, "heal images that have pages in damaged frames"},
    {"ls", cmd_ls, "list the images of a store"},
    {"inspect", cmd_inspect, "show what an image is made of"},
    {"trace", cmd_trace,
     "show or remove an image's trace: the order in which its pages are touched"},
    {"optimize", cmd_optimize, "lay an image out by its trace"},
    {"rm", cmd_rm, "remove an image from a store"},
    {"gc", cmd_gc, "give back the space of packs that no image refers to"},
    {"serve", cmd_serve, "serve page faults of VMs restored from the images of a store"},
    {"engine", cmd_engine, NULL}, // only `serve` starts it
    {"handler", cmd_handler, "serve page faults from one raw memory file, in the foreground"},
    {"listen", cmd_listen, "have a running server listen for an image at another path"},
    {"record", cmd_record, "record which pages the next VMs of an image touch, for later VMs"},
    {"template", cmd_template, "have a running server keep an image in memory that VMs share"},
    {"status", cmd_status, "show the state of a running server and of its VMs"},
    {"drain", cmd_drain, "have a running server take no new VM, and wait until none needs it"},
    {"upgrade", cmd_upgrade, "replace a running server's engine without a pause"},
    {"doctor", cmd_doctor, "find VMs of this host that wait for a page for ever, and what helps"},
    {"rescue", cmd_rescue, "take over a VM whose fault handler is gone"},
};

int main(int argc, char **argv)
{
    return verb_run(verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
