"""The grader of mathematics: what says the same is right however it is written, and nothing else is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inftythink.grade.base import Ask
from inftythink.grade.math import grade_math, normal_form
from inftythink.grade.pool import GradePool
from inftythink.grade.tidy import tidy

RIGHT = [
    (r"\dfrac{1}{29,\!322,\!216}", r"\boxed{\frac{1}{29322216}}"),
    (r"\dfrac{2469}{20,\!000}", r"\boxed{0.12345}"),
    (r"\frac{\sqrt{2}}{1,000}", r"\boxed{\sqrt{2}/1000}"),
    (r"\frac{3\sqrt{3}}{\pi}", "**Final Answer:**\nThe radius of the circle is (3√3)/π inches."),
    ("42", "The answer is 42."),
    ("18", "She makes 18 dollars.\n#### 18"),
    ("1,234", "#### 1234"),
    ("1234", "#### 1,234"),
    ("33", r"\boxed{033}"),
    ("033", r"\boxed{33}"),
    ("025", "25"),
    ("42", r"\boxed{41} no \boxed{42}"),
    ("42", r"\boxed{42} is my answer, not 43"),
    ("42", "４２"),
    ("42", r"\boxed{٤٢}"),
    ("5", r"\boxed{x=5}"),
    ("x=5", r"\boxed{5}"),
    (r"\frac{1}{2}", "½"),
    (r"\frac{7}{2}", r"\boxed{3½}"),
    (r"\sqrt{13}", "√13"),
    (r"3\sqrt{13}", r"\boxed{3√13}"),
    (r"3\sqrt{13}", r"\boxed{3\sqrt13}"),
    (r"3\sqrt{13}", r"\boxed{3*sqrt(13)}"),
    (r"90^\circ", r"\boxed{90°}"),
    (r"90^\circ", r"\boxed{90}"),
    ("90", r"\boxed{90^\circ}"),
    ("90", r"\boxed{90^{\circ}}"),
    ("90", r"\boxed{90\text{ degrees}}"),
    ("90", r"\boxed{90 degrees}"),
    (r"5.4 \text{ cents}", r"\boxed{5.4}"),
    (r"\$18.90", r"\boxed{18.9}"),
    (r"\$18.90", r"\boxed{\$18.90}"),
    (r"\$18.90", r"$\boxed{18.90}$ dollars"),
    (r"\$18.90", "The answer is $18.90."),
    (r"\$32,\!348", r"\boxed{\$32,348}"),
    ("32348", r"\boxed{32{,}348}"),
    ("32348", r"\boxed{32\,348}"),
    ("32348", r"\boxed{32 348}"),
    (r"864 \mbox{ inches}^2", r"\boxed{864\text{ square inches}}"),
    (r"864 \mbox{ inches}^2", r"\boxed{864\text{ in}^2}"),
    (r"864 \mbox{ inches}^2", r"\boxed{864\ \mathrm{in}^2}"),
    (r"15\mbox{ cm}^2", r"\boxed{15 cm^2}"),
    ("5", r"\boxed{5 m}"),
    ("5", r"\boxed{5\text{ m/s}}"),
    ("5", r"\boxed{5 apples}"),
    ("5", r"\boxed{5,}"),
    (r"\text{Evelyn}", "The answer is Evelyn."),
    (r"\text{Evelyn}", r"\boxed{\textbf{Evelyn}}"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{even}", r"\boxed{even}"),
    (r"\text{(C)}", r"\boxed{\textbf{(C)}}"),
    (r"\text{(C)}", r"\boxed{\mathrm{C}}"),
    (r"\text{ellipse}", r"\boxed{\text{an ellipse}}"),
    (r"\text{ellipse}", r"\boxed{\text{Ellipse}}"),
    ("2516_8", r"\boxed{2516_{\text{eight}}}"),
    ("4210_{5}", r"\boxed{4210_5}"),
    ("4210_{5}", r"\boxed{4210_{\text{5}}}"),
    ("4210_{5}", r"\boxed{4210\text{ (base 5)}}"),
    ("1,-2", r"$\boxed{1}$ and $\boxed{-2}$"),
    ("1,-2", r"\boxed{x=1 \text{ or } x=-2}"),
    ("1,-2", r"\boxed{1\text{ and }-2}"),
    ("3, 5, 7", r"\boxed{3,5,\text{ and }7}"),
    ("3, 5, 7", r"\boxed{\{3,5,7\}}"),
    ("(6,31,-1)", r"\boxed{(6, 31, -1)}"),
    ("(6,31,-1)", r"\boxed{\left( 6,\, 31,\, -1 \right)}"),
    ("(1,-16,-4,43)", r"\boxed{1,-16,-4,43}"),
    ("(6,31,-1)", r"\boxed{\langle 6,31,-1\rangle}"),
    ("(3,5)", r"\boxed{x=3,y=5}"),
    (r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}", r"\boxed{\begin{bmatrix} -2 \\ -14 \\ -7 \end{bmatrix}}"),
    (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\boxed{\begin{pmatrix}-1&0\\0&-1\end{pmatrix}}"),
    (
        r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}",
        r"\boxed{\left[\begin{array}{cc} -1 & 0 \\ 0 & -1 \end{array}\right]}",
    ),
    (
        r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
        r"\boxed{\begin{pmatrix} -\frac{1}{3} \\[4pt] \frac{2}{3} \\[4pt] \frac{5}{3} \end{pmatrix}}",
    ),
    ("x^5 - x^4 + x^3 - x^2 + x - 1", r"\boxed{-1+x-x^2+x^3-x^4+x^5}"),
    (r"(2,\infty)", r"\boxed{(2, +\infty)}"),
    (r"(2,\infty)", r"\boxed{x>2}"),
    (r"(2,\infty)", r"\boxed{(2,inf)}"),
    (r"(-\infty, 2) \cup (3, \infty)", r"\boxed{(-∞, 2) ∪ (3, ∞)}"),
    (r"(-\infty, 2) \cup (3, \infty)", r"\boxed{(-\infty, 2) U (3, \infty)}"),
    (r"(0,9) \cup (9,36)", r"\boxed{(9,36)\cup(0,9)}"),
    (r"\infty", r"\boxed{infinity}"),
    ("0.15", r"\boxed{\frac{3}{20}}"),
    ("0.15", r"\boxed{15\%}"),
    (r"15\%", r"\boxed{15}"),
    (r"15\%", "15 percent"),
    (r"50\%", r"\boxed{\frac{1}{2}}"),
    (r"1\frac{4}{5}", r"\boxed{1 \frac{4}{5}}"),
    (r"1\frac{4}{5}", "1 4/5"),
    (r"-1\frac{4}{5}", r"\boxed{-9/5}"),
    ("9", r"\boxed{3^2}"),
    ("8", r"\boxed{2^3}"),
    ("1024", r"\boxed{2^{10}}"),
    ("1/2", r"\boxed{2^{-1}}"),
    ("6 - 5i", r"\boxed{6-5i}"),
    ("1+2i", r"\boxed{2i+1}"),
    ("2i", r"\boxed{(1+i)^2}"),
    (r"\frac{\sqrt{3}}{3}", r"\boxed{\frac{1}{\sqrt{3}}}"),
    (r"\frac{\sqrt{3}}{3}", r"\boxed{0.577350}"),
    (r"\frac{\sqrt{3}}{3}", r"\boxed{\sqrt{\frac13}}"),
    (r"18+2\pi", r"\boxed{2\pi+18}"),
    (r"18+2\pi", r"\boxed{2(\pi+9)}"),
    (r"\frac{20000}{\pi}", r"\boxed{20000/\pi}"),
    (r"12\pi", r"\boxed{12π}"),
    (r"12\pi", r"\boxed{12 pi}"),
    ("y = -2x", r"\boxed{y=-2x}"),
    ("y = -2x", r"\boxed{-2x}"),
    ("y = 2x + 3", r"\boxed{y = 3+2x}"),
    ("5x - 7y + 11z + 4 = 0", r"\boxed{5x-7y+11z=-4}"),
    (r"3 \pm 2 \sqrt{2}", r"\boxed{3+2\sqrt{2}, 3-2\sqrt{2}}"),
    (r"3 \pm 2 \sqrt{2}", r"\boxed{3\pm\sqrt{8}}"),
    (r"\frac{11+9a}{20}", r"\boxed{\frac{9a+11}{20}}"),
    (r"\frac{11+9a}{20}", r"\boxed{0.45a+0.55}"),
    ("6r^2-4r-24", r"\boxed{2(3r^2-2r-12)}"),
    ("42", "Let me think. There are 42 apples in total"),
    ("42", r"\boxed{\frac{84}{2}}"),
    ("42", r"\boxed{42.0}"),
    ("42", r"\boxed{42.}"),
    ("42", r"\boxed{\boxed{42}}"),
    ("42", r"\boxed{{42}}"),
    ("42", r"\boxed {42}"),
    ("42", r"\fbox{42}"),
    ("42", "**Answer:** 42"),
    ("42", "Final Answer: $42$."),
    ("42", "**Final Answer**\n\n42"),
    ("42", "The final answer is $42$. I hope it is correct."),
    ("42", "The answer is:\n\\[\n42\n\\]"),
    ("42", "Thus $x = 42$."),
    ("42", "So we have 40 + 2 = 42."),
    (r"\frac{3}{56}", r"\boxed{3/56}"),
    (r"\frac{3}{56}", r"\boxed{0.0535714}"),
    (r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]", r"\boxed{[\pi^2/8, 5\pi^2/4]}"),
    (r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]", r"\boxed{\frac{\pi^2}{8} \le x \le \frac{5\pi^2}{4}}"),
    ("2k+2", r"\boxed{2(k+1)}"),
    ("2k", r"\boxed{2k}"),
    ("3R^2", r"\boxed{3 R^2}"),
    ("3:30", r"\boxed{3:30}"),
    (r"\text{3:30 p.m.}", r"\boxed{3:30\text{ p.m.}}"),
    ("55", r"\boxed{m+n=55}"),
    ("(3,5)", r"\boxed{(x,y)=(3,5)}"),
    ("-1", r"\boxed{−1}"),
    ("1000000", r"\boxed{10^6}"),
    ("5", r"\boxed{|{-5}|}"),
    ("7", r"\boxed{\lfloor 7.5 \rfloor}"),
    ("120", r"\boxed{\binom{10}{3}}"),
    ("120", r"\boxed{5!}"),
    ("x^2", r"\boxed{x²}"),
    ("5", r"\boxed{5\$}"),
    ("3", r"\boxed{\approx 3}"),
    ("5", "答案是5。"),
    ("A", r"\boxed{A}"),
    ("2,4", r"\boxed{4,2}"),
    ("(2,4)", r"\boxed{2,4}"),
    ("50", r"$\boxed{50\%}$"),
    ("1,-2", r"\boxed{-2,1}"),
    (r"x \in [-2,7]", r"\boxed{-2\le x\le 7}"),
    (".0000672", r"\boxed{6.72\times 10^{-5}}"),
    (r"\cot x", r"\boxed{\frac{1}{\tan x}}"),
    ("(a+5)(b+2)", r"\boxed{ab+2a+5b+10}"),
    ("5x - 7y + 11z + 4 = 0", r"\boxed{10x - 14y + 22z + 8 = 0}"),
    (r"(-\infty, 2) \cup (3, \infty)", r"\boxed{x<2 \text{ or } x>3}"),
    (r"(-\infty, 0]", r"\boxed{x\le 0}"),
    (r"\frac{1}{3}", r"\boxed{0.333333}"),
    (r"\{1\pm\sqrt{5},-2\}", r"\boxed{-2,1-\sqrt5,1+\sqrt5}"),
    (r"11,\! 111,\! 111,\! 100", r"\boxed{11111111100}"),
    ("5", r"\boxed{5=x}"),
    ("762", "**Total**: 300 + 312 + 150 = **762**"),
    ("2400", r"**Answer**: The cost is **\$2400**."),
    ("6", "**Answer**: Erin should buy **6 scoops** for $6.00."),
    ("20", "**Answer:** Jason needs to walk 20 minutes each day."),
    ("11", "**Answer:** Tom could buy 11 more CDs."),
    (r"\frac{1}{2}", r"\boxed{0.5}"),
    (r"\frac{1}{2}", r"\boxed{.5}"),
    (r"\frac{1}{2}", r"\boxed{50\%}"),
    ("1/2", r"\boxed{\frac12}"),
    (r"10\%", r"\boxed{0.1}"),
    (r"10\%", r"\boxed{\frac{1}{10}}"),
    ("[0,1]", r"\boxed{0 \leq x \leq 1}"),
    ("[0,1)", r"\boxed{\left[0,1\right)}"),
    (r"\{1,2,3\}", r"\boxed{\{3,2,1\}}"),
    (r"\{1,2,3\}", r"\boxed{1,2,3}"),
    ("x=1,2", r"\boxed{1,2}"),
    ("x=1, x=2", r"\boxed{1, 2}"),
    (r"x = 1 \text{ or } x = 2", r"\boxed{\{1,2\}}"),
    ("-2,1", r"\boxed{x=-2\text{ or }x=1}"),
    (r"\frac{\pi}{4}", r"\boxed{\pi/4}"),
    (r"\frac{\pi}{4}", r"\boxed{0.25\pi}"),
    (r"2\sqrt{3}", r"\boxed{\sqrt{12}}"),
    (r"2\sqrt{3}", r"\boxed{2 \cdot \sqrt{3}}"),
    (r"2\sqrt{3}", r"\boxed{2*3^(1/2)}"),
    (r"2\sqrt{3}", r"\boxed{2 \cdot 3^{1/2}}"),
    (r"\sqrt[3]{2}", r"\boxed{2^{1/3}}"),
    (r"\log_2 3", r"\boxed{\log_{2}{3}}"),
    (r"\ln 2", r"\boxed{\ln(2)}"),
    ("e^2", r"\boxed{e^{2}}"),
    ("e", r"\boxed{e}"),
    ("n!", r"\boxed{n!}"),
    (r"\binom{n}{2}", r"\boxed{\frac{n(n-1)}{2}}"),
    ("2^{100}", r"\boxed{2^{100}}"),
    ("2^{100}", r"\boxed{1267650600228229401496703205376}"),
    (r"\$1,000", r"\boxed{1000}"),
    (r"\$1,000", r"\boxed{\$1000.00}"),
    ("1,000,000", r"\boxed{1000000}"),
    ("3:4", r"\boxed{3:4}"),
    ("12:30", r"\boxed{12:30}"),
    (r"\text{Monday}", r"\boxed{Monday}"),
    ("Monday", "The answer is Monday."),
    (r"\text{yes}", r"\boxed{\text{Yes}}"),
    ("yes", r"\boxed{Yes}"),
    (r"\text{True}", r"\boxed{\text{true}}"),
    ("7", r"\boxed{7 \text{ days}}"),
    ("7", r"\boxed{7\,\text{cm}}"),
    ("7", r"\boxed{7~\mathrm{cm}}"),
    (r"7\text{ cm}", r"\boxed{7}"),
    ("25", r"\boxed{25.}"),
    ("25", r"$\boxed{25}$."),
    ("25", r"\boxed{+25}"),
    ("25", r"\boxed{5^2}"),
    ("y=x+1", r"\boxed{y = x + 1}"),
    ("y=x+1", r"\boxed{x-y+1=0}"),
    ("x^2+y^2=1", r"\boxed{y^2+x^2=1}"),
    ("f(x)=x^2", r"\boxed{x^2}"),
    ("f(x)=x^2", r"\boxed{f(x) = x^2}"),
    ("x>3", r"\boxed{(3,\infty)}"),
    ("x>3", r"\boxed{3<x}"),
    (r"x \neq 2", r"\boxed{x\ne 2}"),
    (r"\emptyset", r"\boxed{\varnothing}"),
    (r"\emptyset", r"\boxed{\{\}}"),
    ("C", r"\boxed{\text{(C)}}"),
    ("C", r"\boxed{\textbf{(C)}}"),
    (r"\text{(C)}", r"\boxed{C}"),
    (r"\sin 30^\circ", r"\boxed{\frac12}"),
    (r"180^\circ - 2x", r"\boxed{180 - 2x}"),
    (r"\mathbb{R}", r"\boxed{(-\infty, \infty)}"),
    (r"(-\infty,\infty)", r"\boxed{x \in \mathbb R}"),
    (r"\ln 2", r"\boxed{\log_e 2}"),
    (r"2\cos 40^\circ", r"\boxed{2\sin 50^\circ}"),
    ("i", r"\boxed{i}"),
    ("-i", r"\boxed{-i}"),
    ("3+4i", r"\boxed{4i+3}"),
    (r"\frac{1+\sqrt{5}}{2}", r"\boxed{\frac{\sqrt5+1}{2}}"),
    (r"\frac{1+\sqrt{5}}{2}", r"\boxed{\frac12+\frac{\sqrt5}2}"),
    (r"1\frac{1}{2}", r"\boxed{1.5}"),
    (r"3\frac{1}{2}", r"\boxed{3 + \frac12}"),
    ("11_2", r"\boxed{11_2}"),
    ("1A3_{16}", r"\boxed{1A3_{16}}"),
    ("(2,3)", r"\boxed{(2, 3)}"),
    ("(2,3)", r"\boxed{x=2, y=3}"),
    (r"(-\infty,\infty)", r"\boxed{(-\infty, \infty)}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{\begin{bmatrix}1&2\\3&4\end{bmatrix}}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{\left(\begin{array}{cc}1&2\\3&4\end{array}\right)}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{\left(\begin{matrix}1&2\\3&4\end{matrix}\right)}"),
    (r"\begin{pmatrix}0.5\\1\end{pmatrix}", r"\boxed{\begin{pmatrix}\frac12\\1\end{pmatrix}}"),
    (r"6.02\times10^{23}", r"\boxed{6.02 \cdot 10^{23}}"),
    (r"30^\circ", r"\boxed{30^\circ}"),
    (r"30^\circ", r"\boxed{\theta = 30^\circ}"),
    (r"\angle ABC = 30^\circ", r"\boxed{30}"),
    ("12", "<think>blah</think> The answer: 12"),
    ("12", "The answer is **12**."),
    ("12", r"The answer is: $\displaystyle 12$"),
    ("12", "The answer is twelve (12)."),
    ("12", "Answer: $12$ apples"),
    (r"\text{undefined}", r"\boxed{\text{undefined}}"),
    (r"\text{no solution}", r"\boxed{\text{No solution}}"),
    ("12", r"\boxed{\text{12}}"),
    ("12", r"\boxed{12 \text{ (apples)}}"),
    ("0", r"\boxed{0.0}"),
    ("2^n-1", r"\boxed{2^{n}-1}"),
    ("a+b", r"\boxed{b+a}"),
    (r"\frac{x+1}{x-1}", r"\boxed{\frac{1+x}{-1+x}}"),
    (r"\sin^2 x", r"\boxed{1-\cos^2 x}"),
    (r"5\sqrt{2}\text{ units}", r"\boxed{5\sqrt{2}}"),
    (r"5\sqrt{2}", r"\boxed{5\sqrt{2}\text{ cm}}"),
    (r"5\sqrt{2}", r"\boxed{5\sqrt{2} \approx 7.07}"),
    ("12", r"\boxed{12 \, \text{cm}^2}"),
    ("12", r"\boxed{12 \text{ m}^{2}}"),
    ("12", r"\boxed{12\ \text{cm}\cdot\text{s}}"),
    ("12", r"\boxed{12 \frac{\text{m}}{\text{s}}}"),
    ("12", r"\boxed{N = 12}"),
    ("12", r"\boxed{|S| = 12}"),
    ("12", r"\boxed{a + b = 12}"),
    ("12", r"\boxed{\text{Area} = 12}"),
    ("12", r"\boxed{6 \times 2}"),
    ("12", r"\boxed{6 \times 2 = 12}"),
    (r"\text{(A)}", r"\boxed{A}"),
    (r"\text{A}", r"\boxed{\text{(A)}}"),
    ("A", r"\boxed{\text{A}}"),
    ("2", r"\boxed{2\\}"),
    (r"-\frac{1}{2}", r"\boxed{\frac{-1}{2}}"),
    (r"-\frac{1}{2}", r"\boxed{\frac{1}{-2}}"),
    (r"-\frac{1}{2}", r"\boxed{-1/2}"),
    (r"-\frac{1}{2}", r"\boxed{-\dfrac{1}{2}}"),
]

WRONG = [
    ("42", "The answer is not 42."),
    ("42", "The answer is either 41 or 42."),
    ("41", r"\boxed{41} no \boxed{42}"),
    ("42", r"\boxed{}"),
    ("42", r"\boxed{ }"),
    (r"5.4 \text{ cents}", r"\boxed{5.4 \text{ dollars}}"),
    (r"15\mbox{ cm}^2", r"\boxed{15\text{ m}^2}"),
    ("5", r"\boxed{5x}"),
    ("5", r"\boxed{5\text{ or more}}"),
    ("5", r"\boxed{-5}"),
    (r"\text{Evelyn}", r"\boxed{\text{Angela}}"),
    (r"\text{even}", r"\boxed{odd}"),
    (r"\text{(C)}", r"\boxed{B}"),
    ("204_5", r"\boxed{204_{10}}"),
    ("1,-2", r"\boxed{1}"),
    ("1,-2", r"\boxed{1,2}"),
    ("(6,31,-1)", r"\boxed{(31,6,-1)}"),
    (r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}", r"\boxed{\begin{pmatrix} -2 \\ 14 \\ -7 \end{pmatrix}}"),
    (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\boxed{\begin{pmatrix} -1 & 0 \\ 0 & 1 \end{pmatrix}}"),
    ("x^5 - x^4 + x^3 - x^2 + x - 1", r"\boxed{x^5 - x^4 + x^3 - x^2 + x + 1}"),
    (r"(2,\infty)", r"\boxed{[2,\infty)}"),
    (r"(0,9) \cup (9,36)", r"\boxed{(0,36)}"),
    (r"\infty", r"\boxed{-\infty}"),
    ("15", r"\boxed{0.15}"),
    ("0.15", r"\boxed{15}"),
    (r"1\frac{4}{5}", r"\boxed{14/5}"),
    ("6 - 5i", r"\boxed{6-5}"),
    (r"\frac{\sqrt{3}}{3}", r"\boxed{\frac{\sqrt{3}}{2}}"),
    (r"12\pi", r"\boxed{12}"),
    ("y = -2x", r"\boxed{y=2x}"),
    (r"3 \pm 2 \sqrt{2}", r"\boxed{3+2\sqrt2}"),
    ("42", "I am not sure."),
    ("42", ""),
    ("42", r"\boxed{42.1}"),
    ("42", r"\boxed{\dfrac{}{}}"),
    ("42", r"\boxed{\frac{1}{}}}{{}"),
    ("41", "So we have 40 + 2 = 42."),
    (r"\frac{3}{56}", r"\boxed{\frac{56}{3}}"),
    (r"\frac{3}{56}", r"\boxed{0.054}"),
    ("10", r"\boxed{10!}"),
    ("3.14", r"\boxed{\pi \approx 3.14}"),
    ("(2,4)", r"\boxed{(4,2)}"),
    ("(2,4)", r"\boxed{4,2}"),
    ("2516_8", r"\boxed{2516_9}"),
    ("2516_8", r"\boxed{1358}"),
    ("(3,5)", r"\boxed{(5,3)}"),
    ("(3,5)", r"\boxed{[3,5]}"),
    ("(3,4]", r"\boxed{[3,4]}"),
    ("x=5", r"\boxed{y=5}"),
    (r"1 \pm \sqrt{19}", r"\boxed{1+\sqrt{19}}"),
    (r"x \in [-2,7]", r"\boxed{(-2,7)}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\boxed{\begin{pmatrix} 1 & 2 \end{pmatrix}}"),
    (".0000672", r"\boxed{.0000673}"),
    (r"\cot x", r"\boxed{\tan x}"),
    ("5x - 7y + 11z + 4 = 0", r"\boxed{5x - 7y + 11z - 4 = 0}"),
    (r"(-\infty, 2) \cup (3, \infty)", r"\boxed{(-\infty, 2] \cup (3, \infty)}"),
    ("3R^2", r"\boxed{3r^2}"),
    ("5r^5", r"\boxed{5x^5}"),
    (r"\frac{1}{3}", r"\boxed{0.333}"),
    (r"\pi", r"\boxed{3.14}"),
    ("2k", r"\boxed{2n}"),
    ("100!", r"\boxed{100!+1}"),
    ("1000000", r"\boxed{1000000.0000001}"),
    ("2", r"\boxed{2,2}"),
    ("1,234", r"\boxed{1,235}"),
    (r"864\text{ inches}^2", r"\boxed{864\text{ inches}^3}"),
    (r"\frac{1}{2}", r"\boxed{\frac{1}{3}}"),
    (r"\frac{1}{3}", r"\boxed{0.33}"),
    ("0.33", r"\boxed{\frac{1}{3}}"),
    (r"10\%", r"\boxed{0.01}"),
    ("[0,1)", r"\boxed{(0,1]}"),
    (r"\{1,2,3\}", r"\boxed{\{1,2\}}"),
    ("(1,2,3)", r"\boxed{(3,2,1)}"),
    (r"\frac{\pi}{4}", r"\boxed{45^\circ}"),
    (r"2\sqrt{3}", r"\boxed{3\sqrt{2}}"),
    ("e", r"\boxed{2.71}"),
    ("1,000,000", r"\boxed{100000}"),
    ("3:4", r"\boxed{4:3}"),
    (r"\text{yes}", r"\boxed{\text{No}}"),
    ("yes", r"\boxed{no}"),
    (r"7\text{ cm}", r"\boxed{7\text{ km}}"),
    ("25", r"\boxed{-25}"),
    ("25", r"\boxed{25 \pm 1}"),
    ("25", r"\boxed{25\ldots}"),
    ("25", r"\boxed{25, 26}"),
    ("25", r"\boxed{25?}"),
    ("25", r"\boxed{5}2"),
    ("52", r"\boxed{5^2}"),
    ("25", r"\boxed{2 5}"),
    ("y=x+1", r"\boxed{y=x-1}"),
    ("x^2+y^2=1", r"\boxed{x^2+y^2=2}"),
    ("x^2+y^2=1", r"\boxed{1}"),
    ("x>3", r"\boxed{x\ge3}"),
    ("i", r"\boxed{-i}"),
    ("3+4i", r"\boxed{3-4i}"),
    ("3+4i", r"\boxed{4+3i}"),
    (r"\frac{1+\sqrt{5}}{2}", r"\boxed{\frac{1-\sqrt{5}}{2}}"),
    (r"\frac{1+\sqrt{5}}{2}", r"\boxed{1.618}"),
    (r"1\frac{1}{2}", r"\boxed{\frac{1}{2}}"),
    ("1A3_{16}", r"\boxed{1B3_{16}}"),
    ("(2,3)", r"\boxed{x=3, y=2}"),
    ("(2,3)", r"\boxed{(2,3,4)}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{\begin{pmatrix}1&3\\2&4\end{pmatrix}}"),
    ("12", "The answer is 12 or 13."),
    ("12", r"\boxed{\text{none of these}}"),
    ("12", r"\boxed{\text{undefined}}"),
    ("12", r"\boxed{\text{12 or 13}}"),
    ("12", r"\boxed{121}"),
    ("12", r"\boxed{1.2}"),
    ("12", r"\boxed{12^{2}}"),
    ("12", r"\boxed{12!}"),
    ("0", r"\boxed{}"),
    ("0", r"\boxed{\text{zero solutions}}"),
    ("2^n-1", r"\boxed{2^{n-1}}"),
    (r"\sin x", r"\boxed{\cos x}"),
    (r"\text{A}", r"\boxed{\text{(B)}}"),
    ("2", r"\boxed{\frac{2}}"),
    ("2", r"\boxed{\text}"),
    ("2", r"\boxed{$}"),
]

NUMBERS = st.builds(Fraction, st.integers(-(10**6), 10**6), st.integers(1, 5000))


@pytest.mark.parametrize(("gold", "conclusion"), RIGHT)
def test_what_says_the_same_is_right(gold: str, conclusion: str) -> None:
    grade = grade_math(Ask("", gold, conclusion))
    assert grade.correct is True, grade
    assert grade.reason is None


@pytest.mark.parametrize(("gold", "conclusion"), WRONG)
def test_what_says_something_else_is_wrong_for_a_reason(gold: str, conclusion: str) -> None:
    grade = grade_math(Ask("", gold, conclusion))
    assert grade.correct is False, grade
    assert grade.reason


def written(value: Fraction) -> list[str]:
    """Ways to write a number."""
    whole, rest = divmod(abs(value), 1)
    sign = "-" if value < 0 else ""
    ways = [f"{value.numerator}/{value.denominator}", rf"{sign}\dfrac{{{abs(value.numerator)}}}{{{value.denominator}}}"]
    if whole and rest:
        ways.append(rf"{sign}{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}")
    if value.denominator == 1:
        ways += [
            str(value.numerator),
            f"{value.numerator:,}",
            f"{value.numerator}.0",
            rf"{value.numerator}\text{{ cm}}",
        ]
        ways.append(f"{value.numerator:,}".replace(",", r",\!"))
    return ways


@given(NUMBERS, st.data())
def test_a_number_is_the_same_however_it_is_written(value: Fraction, data: st.DataObject) -> None:
    gold, answer = data.draw(st.sampled_from(written(value))), data.draw(st.sampled_from(written(value)))
    grade = grade_math(Ask("", gold, rf"so $\boxed{{{answer}}}$"))
    assert (grade.correct, grade.extracted) == (True, str(value))


@given(NUMBERS, NUMBERS, st.data())
def test_different_numbers_are_never_the_same(one: Fraction, other: Fraction, data: st.DataObject) -> None:
    if one == other or one == -other:
        other += 1
    gold, answer = data.draw(st.sampled_from(written(one))), data.draw(st.sampled_from(written(other)))
    assert grade_math(Ask("", gold, rf"\boxed{{{answer}}}")).correct is (one == other)


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5, unique=True), st.randoms())
def test_order_counts_in_tuples_and_not_in_sets(items: list[int], random: object) -> None:
    shuffled = sorted(items, key=lambda _: random.random())  # type: ignore[attr-defined]
    gold, answer = ", ".join(map(str, items)), ", ".join(map(str, shuffled))
    assert grade_math(Ask("", rf"\{{{gold}\}}", rf"\boxed{{\{{{answer}\}}}}")).correct is True
    assert grade_math(Ask("", gold, rf"\boxed{{{answer}}}")).correct is True
    assert grade_math(Ask("", f"({gold})", rf"\boxed{{({answer})}}")).correct is (items == shuffled)


@settings(max_examples=200)
@given(st.text(alphabet=r"\{}[]()^_&$%,.=+-*/!|0123456789abxe fracsqtboxed", max_size=25))
def test_whatever_a_model_writes_gets_a_verdict_or_is_too_heavy(text: str) -> None:
    """Garbage is no error of the grader; towers of powers are left to the time limit of the workers."""
    if "^" in text or "!" in text:
        text = text.replace("^", "").replace("!", "")
    grade = grade_math(Ask("", "42", rf"\boxed{{{text}}}"))
    assert grade.correct is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac{9}{5}", "1.8"),
        (r"\sqrt{242}", r"11\sqrt{2}"),
        ("x=5", "5"),
        (r"\{3, 1\}", r"\{1,3\}"),
        (r"2\pi+18", r"18 + 2 \pi"),
        (r"(a+5)(b+2)", "ab+2a+5b+10"),
        (r"\text{Evelyn}", "evelyn"),
        (r"90^\circ", r"90\text{ degrees}"),
        (r"15\%", "15"),
    ],
)
def test_equal_answers_vote_together(one: str, other: str) -> None:
    assert normal_form(tidy(one)) == normal_form(tidy(other))


def test_what_cannot_be_graded_is_said() -> None:
    assert grade_math(Ask("", None, "42")).correct is None
    assert grade_math(Ask("", "42", None)).reason == "no conclusion"
    assert grade_math(Ask("", "42", r"\boxed{}")).reason == "the answer is empty"
    assert "too long" in str(grade_math(Ask("", "42", r"\boxed{" + "7" * 5000 + "}")).reason)


def test_a_tower_of_powers_times_out() -> None:
    with GradePool(1, 1.0) as pool:
        tower, plain = (pool.submit(grade_math, Ask("", "42", rf"\boxed{{{a}}}")) for a in ("9^{9^{9^9}}", "42"))
        assert tower.result().correct is None
        assert str(tower.result().reason).startswith("timed out after 1 s")
        assert plain.result().correct is True
