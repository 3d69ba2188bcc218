# The table and the judgement of scripts/conformance. The first file is tests/conformance/SUITE.txt, the
# others are results, named by the directory that they are in: .../RUNTIME/cases.
#
# The list has names of cases in lines of their own, then, indented, the reason that they have in common.
# Sections: [always] fails in both modes; [converted] passes if the spec is kept (sysbox-runc-keep), [kept]
# fails only then.
# A name may have " @hybrid" or " @v2" behind it: in the other view the case passes, or is not run.

BEGIN { FS = "\t" }

FILENAME ~ /\.txt$/ {
    if ($0 ~ /^(#|$)/) next
    if ($0 ~ /^\[/) { section = substr($0, 2, length($0) - 2); next }
    if ($0 ~ /^ /) {
        sub(/^ +/, "")
        for (i = 1; i <= pending; i++) reason[names[i]] = (names[i] in reason ? reason[names[i]] " " : "") $0
        told = 1
        next
    }
    if (told) { pending = 0; told = 0 }
    if ($0 ~ / @(hybrid|v2)$/) {
        if ($0 !~ (" @" view "$")) next
        sub(/ @[a-z0-9]+$/, "")
    }
    names[++pending] = $0
    listed[$0] = section
    next
}

{
    parts = split(FILENAME, path, "/")
    runtime = path[parts - 1]
    if (!(runtime in column)) { column[runtime] = ++columns; heading[columns] = runtime }
    group = $2; sub(/: .*/, "", group)
    if (!(group in seen)) { seen[group] = 1; groups[++rows] = group }
    if (!($2 in known)) { known[$2] = 1; cases[++count] = $2 }
    result[runtime, $2] = $1
    number[runtime, group, $1]++
    number[runtime, "all", $1]++
}

function cell(runtime, group,    good, bad) {
    good = number[runtime, group, "pass"] + 0
    bad = number[runtime, group, "fail"] + 0
    return good + bad == 0 ? "-" : good (bad ? " (" bad ")" : "")
}

# Whether a failure of ours counts: only where one of the references passes, if they were run.
function counts(name,    names, i, n, run) {
    n = split(references, names, " ")
    for (i = 1; i <= n; i++) {
        if (result[names[i], name] == "pass") return 1
        run = run || names[i] in column
    }
    return !run
}

# Says what is wrong with a case in a mode, or nothing.
function wrong(runtime, name, mayfail) {
    if (!(runtime in column)) return ""
    if (result[runtime, name] == "") return mayfail || !counts(name) ? "" : runtime " does not get there and is not listed"
    if (result[runtime, name] == "fail" && counts(name) && !mayfail) return runtime " fails and is not listed"
    if (result[runtime, name] == "pass" && mayfail) return runtime " passes though it is listed"
    return ""
}

END {
    printf "%-24s", ""
    for (c = 1; c <= columns; c++) printf "%18s", heading[c]
    print ""
    groups[++rows] = "all"
    for (r = 1; r <= rows; r++) {
        printf "%-24s", groups[r]
        for (c = 1; c <= columns; c++) printf "%18s", cell(heading[c], groups[r])
        print ""
    }
    print ""
    for (i = 1; i <= count; i++) {
        name = cases[i]
        if (result["sysbox-runc", name] !~ /pass|skip/ && counts(name) && name in listed)
            print "known " name "\n      " reason[name] (listed[name] == "converted" ? " (Passes if the spec is kept.)" : "")
        complaint = wrong("sysbox-runc", name, listed[name] ~ /^(always|converted)$/)
        if (complaint == "") complaint = wrong("sysbox-runc-keep", name, listed[name] ~ /^(always|kept)$/)
        if (complaint != "") { print "WRONG " name "\n      " complaint; bad++ }
    }
    if (filter == "" && "sysbox-runc" in column)
        for (name in listed)
            if (!(name in known)) { print "WRONG " name "\n      listed, but there is no such case"; bad++ }
    print bad ? bad " cases are not as listed" : "all cases are as listed"
    exit bad > 0
}
