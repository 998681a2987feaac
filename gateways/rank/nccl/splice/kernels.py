#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes kernels.ptx, the kernels of ranks that share a device: kernels.py > kernels.ptx

OP_TYPE(out, in0..in7, count, m): out[i] = the binary tree in0[i] op in1[i], ... over m inputs, 2 to 8: for d = 1, 2, 4: x[k] = x[k] op
x[k + d].  Every partial result is rounded to the type.  out may be in0.  mul_TYPE(out, in, count, scalar, scalar_at): by a scalar, or by
what lies at scalar_at if that is not 0.  div_TYPE(out, in, count, divisor): integers, towards zero.

PTX of its own, and not from a compiler: one source for every device since sm_70, with no multiply-add that a compiler might have
contracted, and in the instructions that the emulated driver knows.  Narrow floats are widened to f32; their codecs are in integer
instructions where the hardware's came after sm_70.
"""

BYTES = {"i8": 1, "u8": 1, "i32": 4, "u32": 4, "i64": 8, "u64": 8, "f16": 2, "f32": 4, "f64": 8, "bf16": 2, "e4m3": 1, "e5m2": 1}
# The register that holds an element between operations: bits of narrow floats, else the value.
KIND = {"i8": ("b32", "s32"), "u8": ("b32", "u32"), "i32": ("b32", "s32"), "u32": ("b32", "u32"), "i64": ("b64", "s64"),
        "u64": ("b64", "u64"), "f32": ("f32", "f32"), "f64": ("f64", "f64"), "f16": ("b16", "f16"), "bf16": ("b16", "bf16"),
        "e4m3": ("b16", "e4m3"), "e5m2": ("b16", "e5m2")}
LOAD = {"i8": "s8", "u8": "u8", "i32": "s32", "u32": "u32", "i64": "s64", "u64": "u64", "f32": "f32", "f64": "f64", "f16": "u16",
        "bf16": "u16", "e4m3": "u8", "e5m2": "u8"}
STORE = {**LOAD, "i8": "u8"}
NARROW = ("f16", "bf16", "e4m3", "e5m2")
# fp8: mantissa bits, largest finite, NaN, exponent offset, 2^(127 - bias), the smallest normal, 2^23 steps of the subnormals
FP8 = {"e4m3": dict(man=3, largest=0x7e, nan=0x7f, offset=960, up=0x7b800000, normal=0x3c800000, magic=0x46800000),
       "e5m2": dict(man=2, largest=0x7b, nan=0x7e, offset=448, up=0x77800000, normal=0x38800000, magic=0x43000000)}


def decode(t, to, bits):
    """f32 register `to` from the 16-bit register `bits`."""
    if t == "f16":
        return [f"cvt.f32.f16 {to}, {bits};"]
    if t == "bf16":
        return [f"cvt.u32.u16 %c0, {bits};", "shl.b32 %c0, %c0, 16;", f"mov.b32 {to}, %c0;"]
    k = FP8[t]
    lines = [f"cvt.u32.u16 %c0, {bits};", "and.b32 %c1, %c0, 127;", f"shl.b32 %c2, %c1, {23 - k['man']};", "mov.b32 %d0, %c2;",
             f"mov.b32 %d1, 0f{k['up']:08x};", "mul.rn.f32 %d0, %d0, %d1;", "mov.b32 %c2, %d0;"]
    if t == "e4m3":
        lines += ["setp.eq.u32 %z0, %c1, 127;", "selp.b32 %c2, 0x7fc00000, %c2, %z0;"]
    else:  # infinity, and NaN with its bits
        lines += ["setp.ge.u32 %z0, %c1, 124;", "shl.b32 %c3, %c1, 21;", "or.b32 %c3, %c3, 0x7f800000;",
                  "selp.b32 %c2, %c3, %c2, %z0;"]
    return lines + ["and.b32 %c0, %c0, 128;", "shl.b32 %c0, %c0, 24;", "or.b32 %c2, %c2, %c0;", f"mov.b32 {to}, %c2;"]


def encode(t, bits, value):
    if t == "f16":
        return [f"cvt.rn.f16.f32 {bits}, {value};"]
    if t == "bf16":
        return [f"mov.b32 %c0, {value};", "and.b32 %c1, %c0, 0x7fffffff;", "setp.gt.u32 %z0, %c1, 0x7f800000;",
                "shr.u32 %c2, %c0, 16;", "or.b32 %c3, %c2, 64;", "and.b32 %c2, %c2, 1;", "add.u32 %c2, %c2, 0x7fff;",
                "add.u32 %c2, %c2, %c0;", "shr.u32 %c2, %c2, 16;", "selp.b32 %c2, %c3, %c2, %z0;", f"cvt.u16.u32 {bits}, %c2;"]
    k, drop = FP8[t], 23 - FP8[t]["man"]
    return [f"mov.b32 %c0, {value};", "and.b32 %c1, %c0, 0x7fffffff;",
            # a normal number: drop bits, to nearest even
            f"shr.u32 %c2, %c1, {drop};", "and.b32 %c2, %c2, 1;", f"add.u32 %c2, %c2, {(1 << (drop - 1)) - 1};",
            "add.u32 %c2, %c2, %c1;", f"shr.u32 %c2, %c2, {drop};", f"sub.u32 %c2, %c2, {k['offset']};",
            f"min.u32 %c2, %c2, {k['largest']};",
            # a subnormal one: the addition rounds to whole steps
            "mov.b32 %d0, %c1;", f"mov.b32 %d1, 0f{k['magic']:08x};", "add.rn.f32 %d0, %d0, %d1;", "mov.b32 %c3, %d0;",
            f"sub.u32 %c3, %c3, 0x{k['magic']:08x};", f"setp.lt.u32 %z0, %c1, 0x{k['normal']:08x};",
            "selp.b32 %c2, %c3, %c2, %z0;", "setp.gt.u32 %z0, %c1, 0x7f800000;", f"selp.b32 %c2, {k['nan']}, %c2, %z0;",
            "shr.u32 %c0, %c0, 24;", "and.b32 %c0, %c0, 128;", "or.b32 %c2, %c2, %c0;", f"cvt.u16.u32 {bits}, %c2;"]


def pick(op, f, out, x, y):
    """MAX_FLOAT and MIN_FLOAT of the emulated NCCL: the other where one is NaN; x where they are equal."""
    less = f"setp.lt.{f} %z0, {x}, {y};" if op == "max" else f"setp.lt.{f} %z0, {y}, {x};"
    return [less, f"setp.nan.{f} %z1, {x}, {x};", "or.pred %z0, %z0, %z1;", f"selp.{f} {out}, {y}, {x}, %z0;"]


def combine(op, t, x, y):
    """x = x op y."""
    kind = KIND[t][1]
    if t in NARROW:
        lines = decode(t, "%g0", x) + decode(t, "%g1", y)
        if op in ("sum", "prod"):
            verb = "add" if op == "sum" else "mul"
            return lines + [f"{verb}.rn.f32 %g0, %g0, %g1;"] + encode(t, x, "%g0")
        return lines + pick(op, "f32", "%g2", "%g0", "%g1") + ["setp.eq.f32 %z0, %g2, %g1;", f"selp.b16 {x}, {y}, {x}, %z0;"]
    if kind[0] == "f":
        if op in ("sum", "prod"):
            return [f"{'add' if op == 'sum' else 'mul'}.rn.{kind} {x}, {x}, {y};"]
        return pick(op, kind, x, x, y)
    verb = {"sum": "add", "prod": "mul.lo", "max": "max", "min": "min"}[op]
    lines = [f"{verb}.{kind} {x}, {x}, {y};"]
    if BYTES[t] == 1 and op in ("sum", "prod"):  # wraps around
        lines += [f"and.b32 {x}, {x}, 255;"] + ([f"shl.b32 {x}, {x}, 24;", f"shr.s32 {x}, {x}, 24;"] if t == "i8" else [])
    return lines


def load(t, to, at):
    return [f"ld.global.{LOAD[t]} {to}, [{at}];"]


def store(t, at, value):
    return [f"st.global.{STORE[t]} [{at}], {value};"]


def head(name, params):
    yield f".visible .entry {name}("
    yield ",\n".join(f"    .param .{kind} {name}_{i}" for i, kind in enumerate(params))
    yield ")\n{"
    yield "    .reg .pred %p, %z<2>, %q<8>;"
    yield "    .reg .b32 %r<8>, %c<4>;"
    yield "    .reg .b64 %l<32>;"
    yield "    .reg .f32 %d<2>, %g<3>;"


def place(count_param):
    """%l16: the first element of this thread; %l17: the step; %l18: the count."""
    return ["mov.u32 %r0, %ctaid.x;", "mov.u32 %r1, %ntid.x;", "mov.u32 %r2, %tid.x;", "mov.u32 %r3, %nctaid.x;",
            "mul.wide.u32 %l16, %r0, %r1;", "cvt.u64.u32 %l19, %r2;", "add.u64 %l16, %l16, %l19;",
            "mul.wide.u32 %l17, %r1, %r3;", f"ld.param.u64 %l18, [{count_param}];"]


def tree(op, t, n):
    """The tree over x0 .. x(n-1); inputs past half of n are guarded by %q."""
    lines, d = [], 1
    while d < n:
        for k in range(0, n - d, 2 * d):
            guarded = k + d > n // 2
            if guarded:
                lines.append(f"@!%q{k + d} bra SKIP{k + d}_{d};")
            lines += combine(op, t, f"%x{k}", f"%x{k + d}")
            if guarded:
                lines.append(f"SKIP{k + d}_{d}:")
        d *= 2
    return lines


def reduction(op, t):
    name, size = f"{op}_{t}", BYTES[t]
    yield from head(name, ["u64"] * 10 + ["u32"])
    yield f"    .reg .{KIND[t][0]} %x<8>;"
    body = place(f"{name}_9") + [f"ld.param.u32 %r4, [{name}_10];", f"ld.param.u64 %l8, [{name}_0];"]
    body += [f"ld.param.u64 %l{k}, [{name}_{k + 1}];" for k in range(8)]
    body += [f"setp.gt.u32 %q{k}, %r4, {k};" for k in range(2, 8)]
    body += ["setp.gt.u32 %p, %r4, 4;", "@%p bra LOOP8;", "setp.gt.u32 %p, %r4, 2;", "@%p bra LOOP4;"]
    for n in (2, 4, 8):
        body += [f"LOOP{n}:", "setp.ge.u64 %p, %l16, %l18;", "@%p bra END;", f"mul.lo.u64 %l20, %l16, {size};"]
        for k in range(n):
            guard = f"@%q{k} " if k > n // 2 else ""
            body += [f"add.u64 %l21, %l{k}, %l20;"] + [guard + line for line in load(t, f"%x{k}", "%l21")]
        body += [line.replace("SKIP", f"SKIP{n}_") for line in tree(op, t, n)]
        body += ["add.u64 %l21, %l8, %l20;"] + store(t, "%l21", "%x0") + ["add.u64 %l16, %l16, %l17;", f"bra LOOP{n};"]
    for line in body + ["END:", "ret;"]:
        yield ("" if line.endswith(":") else "    ") + line
    yield "}"


def elementwise(name, t, params, before, each):
    yield from head(name, ["u64"] * 3 + params)
    yield f"    .reg .{KIND[t][0]} %x<2>;"
    body = place(f"{name}_2") + [f"ld.param.u64 %l8, [{name}_0];", f"ld.param.u64 %l0, [{name}_1];"] + before
    body += ["LOOP:", "setp.ge.u64 %p, %l16, %l18;", "@%p bra END;", f"mul.lo.u64 %l20, %l16, {BYTES[t]};",
             "add.u64 %l21, %l0, %l20;"] + load(t, "%x0", "%l21") + each + ["add.u64 %l21, %l8, %l20;"] + store(t, "%l21", "%x0")
    body += ["add.u64 %l16, %l16, %l17;", "bra LOOP;"]
    for line in body + ["END:", "ret;"]:
        yield ("" if line.endswith(":") else "    ") + line
    yield "}"


def scale(t):
    name = f"mul_{t}"
    before = [f"ld.param.{LOAD[t]} %x1, [{name}_3];", f"ld.param.u64 %l1, [{name}_4];", "setp.eq.u64 %p, %l1, 0;",
              "@%p bra LOOP;"] + load(t, "%x1", "%l1")
    return elementwise(name, t, ["u64", "u64"], before, combine("prod", t, "%x0", "%x1"))


def divide(t):
    name, kind = f"div_{t}", KIND[t][1]
    # the divisor is the number of ranks
    before = [f"ld.param.{'u64' if BYTES[t] == 8 else 'u32'} %x1, [{name}_3];"]
    return elementwise(name, t, ["u64"], before, [f"div.{kind} %x0, %x0, %x1;"])


def main():
    print("// SPDX-License-Identifier: Apache-2.0\n// Written by kernels.py.  Each type is a module of its own (kernels.c).")
    for t in BYTES:
        print(f"// TYPE {t}\n.version 6.0\n.target sm_70\n.address_size 64\n")
        for op in ("sum", "prod", "max", "min"):
            print("\n".join(reduction(op, t)) + "\n")
        print("\n".join(scale(t)) + "\n")
        if t[0] in "iu":
            print("\n".join(divide(t)) + "\n")


main()
