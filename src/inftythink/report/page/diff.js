// What changed between two summaries: the longest common subsequence of their words.

const MOST_CELLS = 16_000_000;

const words = (value) => value.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
const lines = (value) => value.match(/[^\n]*\n|[^\n]+$/g) ?? [];

/** Return `[kind, text]` pieces that lead from `before` to `after`; kind is "same", "gone" or "new". */
function changes(before, after) {
  for (const cut of [words, lines]) {
    const found = compare(cut(before), cut(after));
    if (found) return found;
  }
  return [["gone", before], ["new", after]];
}

/** How much of `after` was not in `before`, by characters. */
function shareNew(pieces) {
  let fresh = 0;
  let all = 0;
  for (const [kind, piece] of pieces) {
    const size = piece.trim().length;
    if (kind === "new") fresh += size;
    if (kind !== "gone") all += size;
  }
  return all ? fresh / all : 0;
}

function compare(a, b) {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const left = a.slice(head, a.length - tail);
  const right = b.slice(head, b.length - tail);
  if ((left.length + 1) * (right.length + 1) > MOST_CELLS) return null;
  const pieces = [["same", a.slice(0, head).join("")], ...middle(left, right), ["same", b.slice(b.length - tail).join("")]];
  return tidy(pieces);
}

function middle(a, b) {
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const here = i * width + j;
      longest[here] = a[i] === b[j] ? longest[here + width + 1] + 1 : Math.max(longest[here + width], longest[here + 1]);
    }
  }
  const pieces = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const down = i < a.length ? longest[(i + 1) * width + j] : -1;
    const across = j < b.length ? longest[i * width + j + 1] : -1;
    if (i < a.length && j < b.length && a[i] === b[j]) {
      pieces.push(["same", a[i]]);
      i += 1;
      j += 1;
    } else if (down >= across) {
      pieces.push(["gone", a[i]]);
      i += 1;
    } else {
      pieces.push(["new", b[j]]);
      j += 1;
    }
  }
  return pieces;
}

/** Join pieces: what was taken away stands before what came; a lone space between two changes belongs to them. */
function tidy(pieces) {
  const found = [];
  let gone = "";
  let fresh = "";
  const flush = () => {
    if (gone) found.push(["gone", gone]);
    if (fresh) found.push(["new", fresh]);
    gone = fresh = "";
  };
  pieces.forEach(([kind, piece], place) => {
    if (kind === "gone") gone += piece;
    else if (kind === "new") fresh += piece;
    else if ((gone || fresh) && !piece.trim() && piece !== "" && pieces[place + 1] && pieces[place + 1][0] !== "same") {
      gone += piece;
      fresh += piece;
    } else if (piece) {
      flush();
      const last = found[found.length - 1];
      if (last && last[0] === "same") last[1] += piece;
      else found.push(["same", piece]);
    }
  });
  flush();
  return found;
}
