# SPDX-License-Identifier: Apache-2.0
# Makes the table of bench/run sizes: medians and maxima in ms, and the ratio of the medians, before to now.
def median: sort | if length == 0 then null else .[length / 2 | floor] end;
def round2: if . == null then "-" else (. * 100 | round / 100 | tostring) end;
def of($who; $what): map(select(.who == $who and .what == $what) | .ms[]);
def ratio($a; $b): if $a == null or $b == null or $b == 0 then "-" else ($a / $b | round2) end;
"| images | attach old: p50 | max | new: p50 | max | old : new | take-over old: p50 | max | new: p50 | max | old : new |",
"| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
(group_by([.kind, .number])[] |
    (if .[0].kind == "gib" then "1 of \(.[0].number) GiB" else "\(.[0].number) of 64 MiB" end) as $name |
    of("before"; "attach") as $ab | of("now"; "attach") as $an |
    of("before"; "takeover") as $tb | of("now"; "takeover") as $tn |
    "| \($name) | \($ab | median | round2) | \($ab | max | round2) | \($an | median | round2) | \($an | max | round2) " +
    "| \(ratio($ab | median; $an | median)) | \($tb | median | round2) | \($tb | max | round2) " +
    "| \($tn | median | round2) | \($tn | max | round2) | \(ratio($tb | median; $tn | median)) |")
