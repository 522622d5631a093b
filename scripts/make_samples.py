"""Write the sample traces that ship with the package: long, real-looking reasoning whose every step is computed.

    python scripts/make_samples.py [--check]

Each problem has a function that reasons step by step and an independent check of its answer. The seed is fixed, so the
file is the same on every run; ``--check`` writes nothing and fails when the shipped file differs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, permutations, product
from pathlib import Path

OUTPUT = Path(__file__).parent.parent / "src" / "inftythink" / "samples" / "traces.jsonl"
SEED = 20250306


@dataclass(frozen=True)
class Sample:
    """A problem, the reasoning as pieces that are joined by ``glue``, the text after it, and the answer."""

    name: str
    problem: str
    answer: str
    thoughts: list[str]
    conclusion: str
    glue: str = "\n\n"

    def row(self) -> dict[str, object]:
        """The trace in the layout of OpenR1-Math."""
        text = f"<think>\n{self.glue.join(self.thoughts)}\n</think>\n\n{self.conclusion}"
        return {
            "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"inftythink/samples/{self.name}")),
            "source": "inftythink/samples",
            "problem": self.problem,
            "answer": self.answer,
            "messages": [{"role": "user", "content": self.problem}, {"role": "assistant", "content": text}],
            "license": "Apache-2.0",
        }


def collatz(rng: random.Random) -> Sample:
    """A long trajectory, followed number by number."""
    start, n, steps, peak = 703, 703, 0, 703
    thoughts = [
        f"Okay, so I start with {start} and apply the rule again and again: halve an even number, and send an odd number n "
        "to 3n + 1. I have to count how many steps it takes to reach 1. There is no formula for this, so I will just "
        "follow the numbers and keep a careful count.",
    ]
    while n != 1:
        lines = []
        for _ in range(rng.randint(3, 6)):
            if n == 1:
                break
            before, n, steps = n, n // 2 if n % 2 == 0 else 3 * n + 1, steps + 1
            how = (
                f"{before} is even, so {before} / 2 = {n}"
                if before % 2 == 0
                else f"{before} is odd, so 3 * {before} + 1 = {n}"
            )
            lines.append(f"Step {steps}: {how}.")
            peak = max(peak, n)
        opening = rng.choice(
            [
                "Going on.",
                "Next few steps.",
                f"Now I am at {int(lines[0].split()[2])}.",
                "Continuing.",
                "Let me keep going.",
            ]
        )
        closing = f" That makes {steps} steps so far, and I am at {n}." if rng.random() < 0.6 else ""
        thoughts.append(opening + " " + " ".join(lines) + closing)
        if n == 250504:
            thoughts.append(
                "Wow, 250504. Starting from 703 I did not expect it to climb that high. It has to come down at some point, so on with it."
            )
    thoughts.append(
        f"So 1 is reached at step {steps}. As a check on the count: an odd step multiplies by a little more than 3 and an even "
        f"one divides by 2. Let a be the number of odd steps and b the number of even ones, a + b = {steps}."
    )
    odd = sum(1 for value in trajectory(start)[:-1] if value % 2)
    ratio = f"{start * 3**odd / 2 ** (steps - odd):.3f}"
    thoughts.append(
        f"In my list there are {odd} odd steps, so b = {steps - odd}. Then {start} * 3^{odd} / 2^{steps - odd} is about {ratio}, below 1, "
        "and the +1 of each odd step makes up the difference. That is consistent. The largest number on the way was "
        f"{peak}."
    )
    answer = len(trajectory(start)) - 1
    assert (steps, peak) == (answer, max(trajectory(start))) == (170, 250504)
    return Sample(
        "collatz",
        "Start with 703. If the current number is even, replace it by half of it; if it is odd, replace n by 3n + 1. After how "
        "many steps is the number 1 reached for the first time?",
        str(answer),
        thoughts,
        f"Following the rule from {start}, the numbers climb to a peak of {peak} and reach 1 for the first time after "
        f"$\\boxed{{{answer}}}$ steps.",
    )


def trajectory(n: int) -> list[int]:
    """The Collatz numbers from ``n`` to 1."""
    return [n] if n == 1 else [n, *trajectory(n // 2 if n % 2 == 0 else 3 * n + 1)]


def primes_by_trial(rng: random.Random) -> Sample:
    """The longest sample: every number of a range, tried by hand."""
    low, high = 2000, 2350
    small = [p for p in range(2, 48) if all(p % q for q in range(2, p))]
    thoughts = [
        f"I need to count the primes between {low} and {high}. An even number in that range is not prime, and a number ending "
        "in 5 is not prime, so only the numbers ending in 1, 3, 7 or 9 are left. For each of them I try division by "
        "small primes.",
        f"How far do I have to go? 48^2 = 2304 and 49^2 = 2401, which is above {high}. So a composite number in the range has "
        f"a prime factor of at most 47. The primes to try are {', '.join(map(str, small))}. I already dealt with 2 and 5.",
        "For 3 I use the sum of digits, and for 11 the alternating sum of digits. For the others I write down the "
        "nearest multiple and look at the remainder.",
    ]
    found: list[int] = []
    for n in range(low + 1, high, 2):
        if n % 5 == 0:
            continue
        digits = [int(d) for d in str(n)]
        if n % 3 == 0:
            thoughts.append(
                f"{n}: the digits add up to {' + '.join(map(str, digits))} = {sum(digits)}, a multiple of 3, so {n} = 3 * {n // 3}. Not prime."
            )
            continue
        tried = []
        for p in small[3:]:
            quotient, remainder = divmod(n, p)
            if p == 11:
                alternating = digits[3] - digits[2] + digits[1] - digits[0]
                tried.append(
                    f"by 11 the alternating sum is {digits[3]} - {digits[2]} + {digits[1]} - {digits[0]} = {alternating}"
                )
            else:
                tried.append(f"{p} * {quotient} = {p * quotient}" + (f", remainder {remainder}" if remainder else ""))
            if remainder == 0:
                break
        start = rng.choice(
            [
                f"{n}: the digit sum is {sum(digits)}, so not by 3.",
                f"Now {n}. Digit sum {sum(digits)}, no 3.",
                f"{n}. Not a multiple of 3 since {sum(digits)} is not.",
            ]
        )
        body = "; ".join(tried)
        if remainder == 0:
            verdict = f"So {n} = {p} * {n // p}, composite."
        else:
            found.append(n)
            verdict = rng.choice(
                ["Nothing divides it, so it is prime.", "No divisor up to 47, prime!", "That leaves no divisor: prime."]
            )
            verdict += f" That is number {len(found)}."
        thoughts.append(f"{start} {body[0].upper() + body[1:]}. {verdict}")
        if len(found) and len(found) % 8 == 0 and remainder:
            thoughts.append(
                f"Let me write down what I have so far: {', '.join(map(str, found))}. That is {len(found)} primes up to {n}."
            )
    thoughts.append(f"I reached the end of the range. The whole list is {', '.join(map(str, found))}.")
    thoughts.append(
        f"Counting them again in rows of five: {'; '.join(', '.join(map(str, found[i : i + 5])) for i in range(0, len(found), 5))}. "
        f"That is {len(found) // 5} full rows and {len(found) % 5} more, so {len(found)} primes."
    )
    estimate = (high - low) / math.log(2175)
    thoughts.append(
        f"As a plausibility check, the density of primes near 2175 is about 1 / ln(2175) = 1 / {math.log(2175):.2f}, so I expect around "
        f"{estimate:.1f} primes in {high - low} numbers. I found {len(found)}, which fits."
    )
    sieve = [True] * (high + 1)
    for p in range(2, high + 1):
        for multiple in range(p * p, high + 1, p):
            sieve[multiple] = False
    assert found == [n for n in range(low, high + 1) if sieve[n]]
    return Sample(
        "primes",
        f"How many prime numbers are there between {low} and {high}?",
        str(len(found)),
        thoughts,
        f"Every number between {low} and {high} that ends in 1, 3, 7 or 9 was tried by the primes up to 47. The primes are "
        f"{', '.join(map(str, found))}, so there are $\\boxed{{{len(found)}}}$ of them.",
    )


def euclid(rng: random.Random) -> Sample:
    """A long Euclidean algorithm in LaTeX, with its coefficients."""
    a, b = 1_160_718_174, 316_258_250
    thoughts = [
        f"We want $\\gcd({a}, {b})$ and integers $x, y$ with ${a}x + {b}y = \\gcd({a}, {b})$. The Euclidean algorithm gives the first; "
        "if I keep track of how each remainder is a combination of the two numbers, it gives the second as well.",
        "Let me write $r_0, r_1, \\dots$ for the remainders, and $r_i = s_i a + t_i b$. At the start $(s_0, t_0) = (1, 0)$ "
        "and $(s_1, t_1) = (0, 1)$. Each new row is the row before the last minus $q$ times the last.",
    ]
    r0, r1, s0, s1, t0, t1, i = a, b, 1, 0, 0, 1, 1
    while r1:
        q, r = divmod(r0, r1)
        i += 1
        s, t = s0 - q * s1, t0 - q * t1
        text = f"${r0} = {q} \\cdot {r1} + {r}$."
        text += (
            f" So $q = {q}$ and the new coefficients are\n$$s_{{{i}}} = {s0} - {q} \\cdot ({s1}) = {s}, \\qquad t_{{{i}}} = {t0} - {q} \\cdot ({t1}) = {t}.$$"
            if r
            else f" The remainder is 0, so the last one that is not zero, ${r1}$, is the greatest common divisor."
        )
        if r:
            assert s * a + t * b == r
            if rng.random() < 0.5:
                text += f"\nCheck modulo 10: ${s} \\cdot {a % 10} + ({t}) \\cdot {b % 10} \\equiv {r % 10}$. Good."
        thoughts.append(text)
        r0, r1, s0, s1, t0, t1 = r1, r, s1, s, t1, t
    thoughts += [
        f"So the greatest common divisor is ${r0}$, with $x = {s0}$ and $y = {t0}$. I should check the combination for real: "
        f"${a} \\cdot ({s0}) = {a * s0}$ and ${b} \\cdot ({t0}) = {b * t0}$. The sum is ${a * s0 + b * t0}$. It works.",
        f"And does ${r0}$ divide both? ${a} / {r0} = {a // r0}$ and ${b} / {r0} = {b // r0}$, both whole. "
        f"We have ${r0} = " + " \\cdot ".join(map(str, factors(r0))) + "$, for what it is worth.",
    ]
    assert r0 == math.gcd(a, b)
    assert a % r0 == b % r0 == 0
    return Sample(
        "euclid",
        f"Find the greatest common divisor of ${a}$ and ${b}$.",
        str(r0),
        thoughts,
        f"The Euclidean algorithm ends with remainder $0$ after ${r0}$, and indeed ${r0} = {a} \\cdot ({s0}) + {b} \\cdot ({t0})$. "
        f"The greatest common divisor is $\\boxed{{{r0}}}$.",
    )


def factors(n: int) -> list[int]:
    """Prime factors in rising order."""
    p = next((p for p in range(2, math.isqrt(n) + 1) if n % p == 0), n)
    return [p] if p == n else [p, *factors(n // p)]


def digits_of_power(rng: random.Random) -> Sample:
    """Doubling with carries, digit by digit."""
    exponent = 200
    thoughts = [
        "The sum of the digits of 2^200. I know 2^10 = 1024, so 2^200 = 1024^20 is a bit more than 10^60, a number with 61 "
        "digits. I have to find all of them. Working modulo 9 will not be enough, it only tells the sum up to multiples "
        "of 9, but it will be a good check at the end.",
        "Plan: 2^20 = 1048576 is easy. Then 2^25, 2^50 = (2^25)^2, 2^100 = (2^50)^2 and 2^200 = (2^100)^2. The squarings "
        "are long, so I will do them by splitting the number into blocks.",
        f"2^20 = 1024 * 1024 = {2**20}. Then 2^25 = 32 * {2**20} = {2**25}.",
    ]
    thoughts += square_in_blocks(2**25, 4, rng)
    thoughts.append(f"So 2^50 = {2**50}. I remember that 2^50 is about 1.1259 * 10^15, and this agrees.")
    thoughts += square_in_blocks(2**50, 4, rng)
    thoughts.append(f"So 2^100 = {2**100}. That has {len(str(2**100))} digits. One more squaring.")
    thoughts += square_in_blocks(2**100, 4, rng)
    value = 2**exponent
    thoughts.append(f"So 2^200 = {value}. It has {len(str(value))} digits, as expected.")
    running, lines = 0, []
    for i in range(0, len(str(value)), 5):
        chunk = [int(d) for d in str(value)[i : i + 5]]
        before, running = running, running + sum(chunk)
        lines.append(f"{' + '.join(map(str, chunk))} = {sum(chunk)}, total {before} + {sum(chunk)} = {running}.")
    thoughts.append("Now the digits, five at a time.\n" + "\n".join(lines))
    thoughts.append(
        f"Check modulo 9: 2^6 = 64 leaves 1, so 2^200 = 2^(6 * 33 + 2) leaves 2^2 = 4. And {running} = 9 * {running // 9} + "
        f"{running % 9}. Both leave {running % 9}."
    )
    assert running == sum(map(int, str(pow(2, exponent))))
    assert running % 9 == 4
    return Sample(
        "digit-sum",
        "What is the sum of the decimal digits of $2^{200}$?",
        str(running),
        thoughts,
        f"$2^{{200}} = {value}$, and its digits add up to $\\boxed{{{running}}}$.",
    )


def square_in_blocks(n: int, width: int, rng: random.Random) -> list[str]:
    """Square ``n`` by the schoolbook method in base ``10**width``; one thought for each column."""
    base, blocks, rest = 10**width, [], n
    while rest:
        rest, block = divmod(rest, base)
        blocks.append(block)
    names = ", ".join(f"b{i} = {block}" for i, block in enumerate(blocks))
    thoughts = [
        f"Squaring {n}. In blocks of {width} digits from the right: {names}. Column k collects the products bi * bj with i + j = k."
    ]
    carry, out = 0, []
    for k in range(2 * len(blocks) - 1):
        pairs = [(i, k - i) for i in range(len(blocks)) if i <= k - i < len(blocks)]
        terms = [
            f"{'2 * ' if i != j else ''}{blocks[i]} * {blocks[j]} = {(1 + (i != j)) * blocks[i] * blocks[j]}"
            for i, j in pairs
        ]
        total = sum((1 + (i != j)) * blocks[i] * blocks[j] for i, j in pairs)
        text = f"Column {k}: {'; '.join(terms)}."
        text += f" Together {total}." if len(pairs) > 1 else ""
        text += f" With the carry {carry} that is {total + carry}." if carry else ""
        carry, block = divmod(total + carry, base)
        out.append(block)
        thoughts.append(
            f"{text} {rng.choice(['I write', 'Write', 'So the block is'])} {block:0{width}d} and carry {carry}."
        )
    result = int("".join([str(carry), *(f"{block:0{width}d}" for block in reversed(out))]))
    assert result == n * n
    thoughts.append(f"Putting the blocks together, the last carry first: {result}.")
    return thoughts


def linear_system(rng: random.Random) -> Sample:
    """Elimination with fractions, and a slip that is found and mended."""
    rows = [[3, 2, -1, 10], [2, -2, 4, -4], [-1, 1, 2, 2]]
    thoughts = [
        "Three equations:\n(1) 3x + 2y - z = 10\n(2) 2x - 2y + 4z = -4\n(3) -x + y + 2z = 2",
        "Equation (2) can be halved: x - y + 2z = -2. Call it (2').",
        "Adding (2') and (3) kills both x and y at once: (x - x) + (-y + y) + (2z + 2z) = -2 + 2, so 4z = 0 and z = 0. Nice.",
        "With z = 0, (2') says x - y = -2, so y = x + 2. And (1) says 3x + 2y = 10. Substituting: 3x + 2x + 4 = 10, so 5x = 6 and x = 6/5.",
        "Then y = 6/5 + 2 = 16/5. Let me check in (1): 3 * 6/5 + 2 * 16/5 = 18/5 + 32/5 = 50/5 = 10. Good.",
        "In (2): 2 * 6/5 - 2 * 16/5 + 0 = 12/5 - 32/5 = -20/5 = -4. Good. In (3): -6/5 + 16/5 + 0 = 10/5 = 2. Good.",
        "Hold on, is the solution unique? I should look at the determinant. Expanding along the first row: "
        "3 * ((-2) * 2 - 4 * 1) - 2 * (2 * 2 - 4 * (-1)) + (-1) * (2 * 1 - (-2) * (-1)).",
        "That is 3 * (-8) - 2 * 8 + (-1) * (2 - 2) = -24 - 16 - 0 = -40. Not zero, so the solution is unique.",
        "By Cramer's rule as a second opinion, x = Dx / D with the first column replaced by (10, -4, 2): "
        "Dx = 10 * ((-2) * 2 - 4 * 1) - 2 * ((-4) * 2 - 4 * 2) + (-1) * ((-4) * 1 - (-2) * 2) = 10 * (-8) - 2 * (-16) - 0 = -80 + 32 = -48.",
        "And -48 / -40 = 6/5. Same as before.",
        "The question asks for x + y + z = 6/5 + 16/5 + 0 = 22/5.",
    ]
    x, y, z = Fraction(6, 5), Fraction(16, 5), Fraction(0)
    assert all(a * x + b * y + c * z == d for a, b, c, d in rows)
    assert x + y + z == Fraction(22, 5)
    return Sample(
        "linear-system",
        "Let $x, y, z$ satisfy $3x + 2y - z = 10$, $2x - 2y + 4z = -4$ and $-x + y + 2z = 2$. Find $x + y + z$.",
        "\\frac{22}{5}",
        thoughts,
        "Adding half of the second equation to the third gives $4z = 0$. Then $x = \\frac{6}{5}$ and $y = \\frac{16}{5}$, so "
        "$x + y + z = \\boxed{\\frac{22}{5}}$.",
    )


def distinct_triples(rng: random.Random) -> Sample:
    """A count by cases."""
    total = 40
    thoughts = [
        f"We count sets {{a, b, c}} of positive integers with a < b < c and a + b + c = {total}. I go through the smallest element a.",
        f"For a given a, b runs from a + 1 upwards and c = {total} - a - b has to be larger than b. So 2b < {total} - a, and b is at "
        f"most the largest integer below ({total} - a) / 2.",
    ]
    count = 0
    for a in range(1, total):
        top = (total - a - 1) // 2
        here = top - a
        if here <= 0:
            thoughts.append(
                f"a = {a}: b would have to be at least {a + 1} and at most {top}. Impossible, and for a larger a as well. Done."
            )
            break
        before, count = count, count + here
        examples = (
            f"from ({a}, {a + 1}, {total - 2 * a - 1}) to ({a}, {top}, {total - a - top})"
            if here > 1
            else f"only ({a}, {top}, {total - a - top})"
        )
        thoughts.append(
            f"a = {a}: b < {total - a}/2, so b goes from {a + 1} to {top}, {examples}. That is {here}. Total {before} + {here} = {count}."
        )
    ordered = (total - 1) * (total - 2) // 2
    equal_pairs = 3 * len([a for a in range(1, total) if total - 2 * a >= 1 and total - 2 * a != a])
    thoughts += [
        f"Wait, let me check this another way. Ordered triples of positive integers with sum {total}: choose 2 of {total - 1} gaps, "
        f"{total - 1} * {total - 2} / 2 = {ordered}.",
        f"Among them, triples with two equal entries: a, a, {total} - 2a with a from 1 to {(total - 1) // 2}. {total} is not a multiple of 3, so all "
        f"three are never equal, and each gives 3 orders: 3 * {equal_pairs // 3} = {equal_pairs}.",
        f"So {ordered} - {equal_pairs} = {ordered - equal_pairs} ordered triples have distinct entries, and each set is counted 6 times: "
        f"{ordered - equal_pairs} / 6 = {(ordered - equal_pairs) // 6}. The two counts agree.",
    ]
    assert count == sum(1 for triple in combinations(range(1, total), 3) if sum(triple) == total)
    assert ordered - equal_pairs == 6 * count
    return Sample(
        "distinct-triples",
        f"In how many ways can {total} be written as a sum of three different positive integers, if the order does not matter?",
        str(count),
        thoughts,
        f"Counting by the smallest summand, and again by ordered triples, gives $\\boxed{{{count}}}$ ways.",
    )


def chinese_remainder(rng: random.Random) -> Sample:
    """In Chinese: no capital letters, other punctuation."""
    conditions = [(3, 2), (5, 3), (7, 2), (11, 6)]
    thoughts = [
        "题目要求最小的正整数 n,满足:除以 3 余 2,除以 5 余 3,除以 7 余 2,除以 11 余 6。前三个条件就是《孙子算经》里的“物不知数”。我先处理前三个条件,再加上最后一个。",
        "先看除以 3 余 2 和除以 7 余 2 这两个条件。它们合起来就是 n - 2 同时被 3 和 7 整除,所以 n = 21k + 2,其中 k = 0、1、2、…。",
        "再看除以 5 余 3。21k + 2 除以 5 的余数等于 k + 2 除以 5 的余数,所以要求 k + 2 ≡ 3 (mod 5),也就是 k ≡ 1 (mod 5)。最小的 k = 1,得到 n = 23。",
        "检验一下:23 = 3 × 7 + 2,23 = 5 × 4 + 3,23 = 7 × 3 + 2,三个条件都满足。所以前三个条件的全部解是 n = 105m + 23,因为 3 × 5 × 7 = 105。",
        "现在加上最后一个条件:n 除以 11 余 6。逐个试 m 的值。",
    ]
    m = 0
    while (105 * m + 23) % 11 != 6:
        n = 105 * m + 23
        thoughts.append(f"m = {m}:n = {n},{n} = 11 × {n // 11} + {n % 11},余数是 {n % 11},不是 6,不满足。")
        m += 1
    n = 105 * m + 23
    thoughts += [
        f"m = {m}:n = {n},{n} = 11 × {n // 11} + {n % 11},余数正好是 6,满足条件。",
        "也可以直接解同余方程来验证:105 = 11 × 9 + 6,所以 105 ≡ 6 (mod 11);23 = 11 × 2 + 1,所以 23 ≡ 1 (mod 11)。于是 6m + 1 ≡ 6 (mod 11),即 6m ≡ 5 (mod 11)。",
        f"6 的逆元是 2,因为 6 × 2 = 12 ≡ 1 (mod 11)。两边乘以 2 得 m ≡ 10 (mod 11)。这和上面试出来的 m = {m} 一致。",
        f"等一下,还要确认没有更小的正整数。四个模数两两互素,解在模 3 × 5 × 7 × 11 = 1155 的意义下唯一,而 {n} < 1155,所以 {n} 就是最小的正整数解。",
        "最后把四个条件再算一遍:" + ";".join(f"{n} = {p} × {n // p} + {n % p}" for p, _ in conditions) + "。全部正确。",
    ]
    assert n == next(k for k in range(1, 1156) if all(k % p == r for p, r in conditions))
    assert m == 10
    wide = str.maketrans({",": "，", ":": "：", ";": "；"})
    return Sample(
        "chinese-remainder",
        "求最小的正整数 n,使得 n 除以 3 余 2,除以 5 余 3,除以 7 余 2,除以 11 余 6。".translate(wide),
        str(n),
        [thought.translate(wide) for thought in thoughts],
        f"由前三个条件得 n = 105m + 23,再由最后一个条件得 m ≡ 10 (mod 11),所以最小的正整数是 $\\boxed{{{n}}}$。".translate(
            wide
        ),
    )


CODE = """```python
def fib(n, m):
    a, b = 0, 1  # F(0), F(1)

    for bit in bin(n)[2:]:
        # (F(k), F(k+1)) becomes (F(2k), F(2k+1))
        a, b = a * (2 * b - a) % m, (a * a + b * b) % m
        if bit == "1":
            a, b = b, (a + b) % m

    return a
```"""


def fibonacci(rng: random.Random) -> Sample:
    """LaTeX, and a code fence with blank lines inside."""
    n, modulus = 1000, 10_000
    thoughts = [
        f"We need the last four digits of $F_{{{n}}}$, that is $F_{{{n}}} \\bmod {modulus}$, with $F_0 = 0$ and $F_1 = 1$.",
        "Adding a thousand times by hand is silly. The doubling formulas are much better:\n\n"
        "\\[\n\\begin{aligned}\nF_{2k} &= F_k \\, (2 F_{k+1} - F_k), \\\\\nF_{2k+1} &= F_k^2 + F_{k+1}^2.\n\\end{aligned}\n\\]\n\n"
        "They follow from $\\begin{pmatrix} 1 & 1 \\\\ 1 & 0 \\end{pmatrix}^{2k} = \\left( \\begin{pmatrix} 1 & 1 \\\\ 1 & 0 \\end{pmatrix}^{k} \\right)^{2}$.",
        "In code it would be this:\n\n" + CODE + "\n\nI cannot run it, so I trace it by hand.",
        f"In binary, ${n} = {bin(n)[2:]}_2$. I start with $k = 0$ and $(F_0, F_1) = (0, 1)$, and read the bits from the left.",
    ]
    a, b, k = 0, 1, 0
    for bit in bin(n)[2:]:
        double, after = a * (2 * b - a), a * a + b * b
        text = f"Bit {bit}, doubling $k = {k}$ to ${2 * k}$:\n"
        text += f"- $F_{{{2 * k}}} = {a} \\cdot (2 \\cdot {b} - {a}) = {double} \\equiv {double % modulus}$\n"
        text += f"- $F_{{{2 * k + 1}}} = {a}^2 + {b}^2 = {after} \\equiv {after % modulus}$"
        a, b, k = double % modulus, after % modulus, 2 * k
        if bit == "1":
            text += f"\n\nThe bit is 1, so one step on: $F_{{{k + 2}}} = {a} + {b} = {a + b} \\equiv {(a + b) % modulus}$, and now $k = {k + 1}$."
            a, b, k = b, (a + b) % modulus, k + 1
        thoughts.append(text)
    thoughts.append(
        f"So $F_{{{n}}} \\equiv {a} \\pmod{{{modulus}}}$. A check: $F_k$ is even exactly when $3 \\mid k$. Since $3 \\nmid {n}$ it must be odd, and ${a}$ is odd. "
        f"And $5 \\mid {n}$ means $F_5 = 5$ divides it: it ends in ${a % 10}$. Both fit."
    )
    x, y = 0, 1
    for _ in range(n):
        x, y = y, x + y
    assert x % modulus == a
    assert a % 2 == 1
    assert a % 5 == 0
    return Sample(
        "fibonacci",
        f"Find the last four digits of the Fibonacci number $F_{{{n}}}$, where $F_1 = F_2 = 1$.",
        str(a),
        thoughts,
        f"By repeated doubling modulo ${modulus}$,\n\n$$F_{{{n}}} \\equiv {a} \\pmod{{{modulus}}},$$\n\nso the last four digits are $\\boxed{{{a}}}$.",
    )


def derangements(rng: random.Random) -> Sample:
    """No blank line anywhere: one thought runs into the next."""
    n = 8
    thoughts = [
        f"We need the number of permutations of {n} objects with no fixed point, the derangements D({n}).",
        "There is a recurrence. Look at where object 1 goes: it goes to some place k other than 1, which can be chosen in n - 1 ways.",
        "If object k goes to place 1, the other n - 2 objects are deranged among themselves: D(n - 2) ways.",
        "If it does not, think of place 1 as the forbidden place of object k: D(n - 1) ways.",
        "So D(n) = (n - 1) * (D(n - 1) + D(n - 2)), with D(1) = 0 and D(2) = 1.",
    ]
    values = {1: 0, 2: 1}
    for k in range(3, n + 1):
        values[k] = (k - 1) * (values[k - 1] + values[k - 2])
        thoughts.append(
            f"D({k}) = {k - 1} * ({values[k - 1]} + {values[k - 2]}) = {k - 1} * {values[k - 1] + values[k - 2]} = {values[k]}."
        )
    thoughts.append("Let me make sure with inclusion and exclusion: D(n) is the sum over k of (-1)^k * n! / k!.")
    running = 0
    for k in range(n + 1):
        term = math.factorial(n) // math.factorial(k) * (-1) ** k
        before, running = running, running + term
        thoughts.append(
            f"k = {k}: {n}! / {k}! = {abs(term)}, with sign {'+' if term > 0 else '-'}, so {before} {'+' if term > 0 else '-'} {abs(term)} = {running}."
        )
    thoughts += [
        f"Both ways give {running}.",
        f"Also {n}! / e = {math.factorial(n)} / 2.71828... = {math.factorial(n) / math.e:.3f}, whose nearest integer is {round(math.factorial(n) / math.e)}. Good.",
    ]
    assert running == values[n] == sum(all(p[i] != i for i in range(n)) for p in permutations(range(n)))
    return Sample(
        "derangements",
        f"{n} guests leave their hats at the door. In how many ways can the hats be handed back so that nobody gets their own hat?",
        str(running),
        thoughts,
        f"The recurrence $D_n = (n-1)(D_{{n-1}} + D_{{n-2}})$ and inclusion and exclusion both give $\\boxed{{{running}}}$.",
        glue="\n",
    )


def dice(rng: random.Random) -> Sample:
    """Markdown lists, nested, and fractions."""
    totals = {total: [roll for roll in product(range(1, 7), repeat=3) if sum(roll) == total] for total in range(3, 19)}
    primes = [total for total in totals if all(total % p for p in range(2, total))]
    thoughts = [
        "Three fair dice, so there are $6^3 = 216$ equally likely rolls. The sum lies between 3 and 18. I need the rolls whose sum is prime.",
        "The primes in that range are "
        + ", ".join(map(str, primes))
        + ". By the symmetry $d \\to 7 - d$ the sum $s$ is as likely as $21 - s$.",
        "I count the rolls for each prime by their sorted values:\n\n"
        + "\n\n".join(f"{i}. sum {total}\n{dice_list(totals[total])}" for i, total in enumerate(primes, 1)),
        "Adding up: "
        + " + ".join(str(len(totals[total])) for total in primes)
        + f" = {sum(len(totals[total]) for total in primes)}.",
    ]
    good = sum(len(totals[total]) for total in primes)
    answer = Fraction(good, 216)
    pairs = [(total, 21 - total) for total in primes if 21 - total in totals and total < 21 - total]
    thoughts += [
        "Let me check some of these by the symmetry: "
        + "; ".join(f"sum {s} has {len(totals[s])} and sum {t} has {len(totals[t])}" for s, t in pairs)
        + ". They agree, as they must.",
        f"Hmm, the parity argument says that the sum is odd in exactly half of the rolls, 108 of them. Odd sums that are not prime are 9 and 15: "
        f"{len(totals[9])} + {len(totals[15])} = {len(totals[9]) + len(totals[15])}. So odd primes take 108 - {len(totals[9]) + len(totals[15])} = "
        f"{108 - len(totals[9]) - len(totals[15])}, and 2 cannot be a sum. Same number.",
        f"The probability is {good}/216. {good} is odd and not a multiple of 3, and 216 = 2^3 * 3^3, so this is in lowest terms.",
    ]
    assert answer.denominator == 216
    assert good == 108 - len(totals[9]) - len(totals[15])
    latex = f"\\frac{{{answer.numerator}}}{{{answer.denominator}}}"
    return Sample(
        "dice",
        "Three fair six-sided dice are rolled. What is the probability that the sum of the numbers shown is prime?",
        latex,
        thoughts,
        f"Of the $216$ rolls, ${good}$ have a prime sum, so the probability is $\\boxed{{{latex}}}$.",
    )


def dice_list(rolls: list[tuple[int, ...]]) -> str:
    """The sorted values of ``rolls`` as a nested list with their number of orders."""
    orders: dict[tuple[int, ...], int] = {}
    for roll in rolls:
        key = tuple(sorted(roll))
        orders[key] = orders.get(key, 0) + 1
    lines = [f"   - {{{', '.join(map(str, key))}}}: {count} order{'s' * (count > 1)}" for key, count in orders.items()]
    return "\n".join([*lines, f"   - together {len(rolls)}"])


def power_modulo(rng: random.Random) -> Sample:
    """Repeated squaring, after a wrong start that is noticed."""
    base, exponent, modulus = 7, 2025, 1000
    thoughts = [
        "I want 7^2025 modulo 1000. First idea: the last digit of powers of 7 has period 4, namely 7, 9, 3, 1. Since 2025 = 4 * 506 + 1, "
        "the last digit is 7. That is only one digit, I need three.",
        "Maybe the last three digits have a small period as well. Let me compute: 7^2 = 49, 7^4 = 49^2 = 2401, so 7^4 = 401 modulo 1000. "
        "I could say that (1 + 400)^k = 1 + 400k modulo 1000 by the binomial theorem, because 400^2 = 160000 is 0 modulo 1000.",
        "So 7^(4k) = 1 + 400k, and that is 1 as soon as 400k is a multiple of 1000, which needs k = 5. The period is 20.",
        "Then 2025 = 20 * 101 + 5, so 7^2025 = 7^5 = 16807, which gives 807.",
        "Wait, I should double check with an independent method, because an error in the period would spoil everything. Repeated squaring, then.",
    ]
    value = base
    powers = {1: base}
    k = 1
    while 2 * k <= exponent:
        square = value * value
        thoughts.append(f"7^{2 * k} = {value}^2 = {square}, so {square % modulus} modulo {modulus}.")
        value, k = square % modulus, 2 * k
        powers[k] = value
    bits = [k for k in sorted(powers, reverse=True) if exponent & k]
    thoughts.append(
        f"In binary 2025 = {' + '.join(map(str, bits))}. So I multiply the powers with these exponents: {', '.join(str(powers[k]) for k in bits)}."
    )
    result = 1
    for k in bits:
        before, result = result, result * powers[k]
        thoughts.append(f"{before} * {powers[k]} = {result}, so {result % modulus}.")
        result %= modulus
    thoughts.append(f"Again {result}. Both methods agree, and the last digit is 7 as it should be.")
    assert result == pow(base, exponent, modulus) == pow(7, 5) % 1000
    return Sample(
        "power-modulo",
        "Find the last three digits of $7^{2025}$.",
        str(result),
        thoughts,
        f"Since $7^4 \\equiv 401$ and $401^5 \\equiv 1 \\pmod{{1000}}$, powers of $7$ have period $20$, and $7^{{2025}} \\equiv 7^5 \\equiv \\boxed{{{result}}} \\pmod{{1000}}$.",
    )


def pell(rng: random.Random) -> Sample:
    """A continued fraction followed to the end of its period."""
    d = 109
    root = math.isqrt(d)
    thoughts = [
        f"The Pell equation x^2 - {d} y^2 = 1. The smallest solution comes from the continued fraction of sqrt({d}). Trying y = 1, 2, 3, ... "
        f"is hopeless here: {d} is known for a huge smallest solution.",
        f"Setup: sqrt({d}) lies between {root} and {root + 1}. I keep (m, q, a) with m' = q * a - m, q' = ({d} - m'^2) / q, a' = floor(({root} + m') / q'). "
        f"The start is m = 0, q = 1, a = {root}.",
        "The convergents are h/k with h' = a' * h + h_before and k' = a' * k + k_before. The theory says h^2 - 109 k^2 = (-1)^(n+1) * q of the next step, "
        "so I can check every line.",
    ]
    m, q, a = 0, 1, root
    h0, h, k0, k, n = 1, root, 0, 1, 0
    while h * h - d * k * k != 1:
        m2 = q * a - m
        q2 = (d - m2 * m2) // q
        a2 = (root + m2) // q2
        h0, h, k0, k, h1, k1 = h, a2 * h + h0, k, a2 * k + k0, h0, k0
        n += 1
        norm = h * h - d * k * k
        text = (
            f"Step {n}: m = {q} * {a} - {m} = {m2}, q = ({d} - {m2 * m2}) / {q} = {q2}, a = floor(({root} + {m2}) / {q2}) = {a2}.\n"
            f"Convergent: h = {a2} * {h0} + {h1} = {h}, k = {a2} * {k0} + {k1} = {k}.\n"
            f"Check: {h}^2 = {h * h} and {d} * {k}^2 = {d} * {k * k} = {d * k * k}, the difference is {norm}."
        )
        m, q, a = m2, q2, a2
        if norm == -1:
            text += "\nThe norm is -1! So this solves x^2 - 109 y^2 = -1. Not yet what I want, but squaring it will be. I go on with the steps as a cross-check."
            x, y = h * h + d * k * k, 2 * h * k
            text += f"\nSquaring: x = {h}^2 + {d} * {k}^2 = {x}, y = 2 * {h} * {k} = {y}."
        elif abs(norm) == 1:
            text += "\nThe norm is +1. This is the first time."
        thoughts.append(text)
    thoughts.append(
        f"The steps end at the same pair that the squaring gave: x = {h}, y = {k}. And {h}^2 - {d} * {k}^2 = 1. The continued fraction runs through all "
        "candidates in rising order, so this is the smallest solution in positive integers."
    )
    assert (h, k) == (x, y) == (158070671986249, 15140424455100)
    return Sample(
        "pell",
        f"Find the smallest positive integer $x$ such that $x^2 - {d} y^2 = 1$ for some positive integer $y$.",
        str(h),
        thoughts,
        f"The continued fraction of $\\sqrt{{{d}}}$ gives the smallest solution $x = {h}$, $y = {k}$. The answer is $\\boxed{{{h}}}$.",
    )


def change(rng: random.Random) -> Sample:
    """A table filled row by row, then the same count by cases."""
    coins, total = [1, 5, 10, 25, 50], 100
    ways = dict.fromkeys(range(0, total + 1, 5), 1)
    thoughts = [
        "Ways to pay 100 cents with coins of 1, 5, 10, 25 and 50 cents. Let w(n) be the number of ways to pay n cents with the coins allowed so far. I add one kind of "
        "coin after the other. With a new coin of value c, w(n) becomes w(n) + w(n - c), where the second is already the new value.",
        "All amounts that matter are multiples of 5: the coins of 1 fill whatever is left. With coins of 1 only there is w(n) = 1 for every n.",
    ]
    for coin in coins[1:]:
        lines = []
        for amount in sorted(ways):
            if amount >= coin:
                old = ways[amount]
                ways[amount] = old + ways[amount - coin]
                lines.append(
                    f"w({amount}) = {old} + w({amount - coin}) = {old} + {ways[amount - coin]} = {ways[amount]}."
                )
        thoughts.append(f"Now the coin of {coin}. Amounts below {coin} keep their value.")
        thoughts += [" ".join(lines[i : i + 5]) for i in range(0, len(lines), 5)]
        thoughts.append(f"With coins up to {coin} there are {ways[total]} ways to pay {total}.")
    thoughts.append(
        "That is the answer if I made no slip in the table. A second count: by the number of coins of 50 and 25, and for what is left I count the coins of 10; the coins of 5 are then free from 0 to a fifth of the rest."
    )
    again = 0
    for fifty in range(total // 50 + 1):
        for quarter in range((total - 50 * fifty) // 25 + 1):
            rest = total - 50 * fifty - 25 * quarter
            terms = [(rest - 10 * ten) // 5 + 1 for ten in range(rest // 10 + 1)]
            before, again = again, again + sum(terms)
            sum_text = f"{' + '.join(map(str, terms))} = {sum(terms)}" if len(terms) > 1 else f"{terms[0]}"
            thoughts.append(
                f"{fifty} of 50 and {quarter} of 25 leave {rest}. With 0 to {rest // 10} coins of 10 there {'is 1 way' if sum(terms) == 1 else f'are {sum_text} ways'}. Total {before} + {sum(terms)} = {again}."
            )
    thoughts.append(f"Both counts give {again}. Good.")

    @lru_cache(None)
    def count(amount: int, kinds: int) -> int:
        if amount == 0:
            return 1
        return 0 if amount < 0 or kinds == 0 else count(amount - coins[kinds - 1], kinds) + count(amount, kinds - 1)

    assert ways[total] == again == count(total, len(coins)) == 292
    return Sample(
        "change",
        "In how many ways can 100 cents be paid with coins of 1, 5, 10, 25 and 50 cents?",
        str(again),
        thoughts,
        f"Adding one kind of coin at a time, and counting again by cases, gives $\\boxed{{{again}}}$ ways.",
    )


MAKERS: list[Callable[[random.Random], Sample]] = [
    *[linear_system, collatz, euclid, chinese_remainder, digits_of_power, fibonacci, derangements],
    *[distinct_triples, dice, power_modulo, pell, change, primes_by_trial],
]


def main() -> int:
    """Write the file, or check it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the shipped file differs")
    args = parser.parse_args()
    samples = [maker(random.Random(SEED)) for maker in MAKERS]
    text = "".join(json.dumps(sample.row(), ensure_ascii=False) + "\n" for sample in samples)
    for sample in samples:
        print(f"{sample.name:<20} {len(sample.glue.join(sample.thoughts)):>7,} characters   answer {sample.answer}")
    if args.check:
        same = OUTPUT.exists() and OUTPUT.read_text(encoding="utf-8") == text
        print(
            "the shipped file is what this script writes"
            if same
            else f"{OUTPUT} differs: run this script without --check"
        )
        return 0 if same else 1
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(text, encoding="utf-8")
    print(f"{OUTPUT}: {len(samples)} traces, {len(text.encode()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
