# SPDX-License-Identifier: Apache-2.0
include "lib";

def sum: add // 0;
def calls($names): . as $counts | [$names[] as $name | $counts[$name] // 0] | sum;

def cost_row:
    [.[] | select(.counted == "strace")][0] as $traced | [.[] | select(.counted == "kernel")][0] as $kernel
    | [.[] | select(.counted == "callgrind")][0] as $ground
    | def a_traced(f): if $traced == null then "-" else ($traced.counts | f) / $traced.faults | digits(2) end;
      ["read", "readv", "preadv2"] as $reads | ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll"] as $waits
    | [names[.[0].server], a_traced(calls($reads)), a_traced(calls(["ioctl"])), a_traced(calls($waits)),
       a_traced(([.[]] | sum) - calls($reads + $waits + ["ioctl"])), a_traced([.[]] | sum),
       ($kernel.counts.reads / $kernel.faults | digits(2)),
       (if $ground == null then "-" else $ground.counts.instructions / $ground.faults | digits(0) end)] | row;

def cost_tables:
    . as $all | unordered_keys(.scenario)[] as $scenario
    | "\n### What a fault costs: \($scenario)\n",
    "System calls for each fault, as strace counts them; reads without strace (\"undisturbed\"), as the kernel counts them;\ninstructions in user space.\n",
    "| server | read | ioctl | epoll, poll | others | all calls | reads, undisturbed | instructions |",
    "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ([$all[] | select(.scenario == $scenario)] as $here | $here | unordered_keys(.server)[] as $server
        | [$here[] | select(.server == $server)] | cost_row);
