"""Turns a terminal screen with escape sequences into an SVG."""
import re
import unicodedata
from html import escape

WIDTH, HEIGHT, FONT = 8.4, 18, 14
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
GROUND, INK = "#16181d", "#d6d9e0"
BASIC = ["#1d2027", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#c8ccd4",
         "#6b7280", "#ff8b92", "#b5e08d", "#ffd68a", "#8cc8ff", "#e29bff", "#7fd8e4", "#ffffff"]


def colour(codes):
    """The colour after 38 or 48, taken off the codes."""
    kind = codes.pop(0) if codes else ""
    if kind == "2" and len(codes) >= 3:
        red, green, blue = (int(codes.pop(0)) for _ in range(3))
        return f"#{red:02x}{green:02x}{blue:02x}"
    if kind == "5" and codes:
        number = int(codes.pop(0))
        if number < 16:
            return BASIC[number]
        if number >= 232:
            return "#" + f"{8 + (number - 232) * 10:02x}" * 3
        steps = [0, 95, 135, 175, 215, 255]
        return "#" + "".join(f"{steps[(number - 16) // power % 6]:02x}" for power in (36, 6, 1))
    return None


def runs(line):
    """(text, style) of a line with escape sequences."""
    style = {}
    for sequence, text in re.findall(r"\x1b\[([0-9;:]*)m|([^\x1b]+)", line):
        if text:
            yield text, dict(style)
            continue
        codes = re.split(r"[;:]", sequence)
        while codes:
            code = int(codes.pop(0) or 0)
            if code == 0:
                style = {}
            elif code in (1, 2, 3, 4, 7):
                style[{1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse"}[code]] = True
            elif code in (22, 23, 24, 27):
                for name in {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("reverse",)}[code]:
                    style.pop(name, None)
            elif code in (38, 48):
                style["ink" if code == 38 else "ground"] = colour(codes)
            elif code in (39, 49):
                style.pop("ink" if code == 39 else "ground", None)
            elif 30 <= code <= 37 or 90 <= code <= 97:
                style["ink"] = BASIC[code - 30 if code < 90 else code - 82]
            elif 40 <= code <= 47 or 100 <= code <= 107:
                style["ground"] = BASIC[code - 40 if code < 100 else code - 92]


def cells(text):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# Block elements are drawn, because fonts leave gaps between them: left, top, width and height in eighths of a cell.
BLOCKS = {chr(0x2580 + n): (0, 8 - n, 8, n) for n in range(1, 9)} | {chr(0x2590 - n): (0, 0, n, 8) for n in range(1, 8)}
SHADES = {"░": 0.25, "▒": 0.5, "▓": 0.75}
DRAWN = "".join([*BLOCKS, *SHADES, "─", "│"])
# A bar with its partial end, a run of one drawn character, spaces, words.
PIECE = re.compile("█*[▏▎▍▌▋▊▉]|" + "|".join(f"{c}+" for c in DRAWN) + f"|  +|(?:(?!  )[^{DRAWN}])+")


def pieces(text):
    """(offset in cells, piece): words with single spaces between them, and runs of one drawn character."""
    offset = 0
    for piece in PIECE.findall(text):
        yield offset, piece
        offset += cells(piece)


def shape(piece, left, top, ink, dim):
    """A run of a drawn character."""
    last, count = piece[-1], len(piece)
    if last == "─":
        x, y, width, height = 0, HEIGHT / 2 - 0.5, count * WIDTH, 1
    elif last == "│":
        x, y, width, height = WIDTH / 2 - 0.5, 0, 1, HEIGHT
    elif last in SHADES:
        x, y, width, height = 0, 2, count * WIDTH, HEIGHT - 4
    else:
        x, y, width, height = (eighths / 8 for eighths in BLOCKS[last])
        # Full bars leave a gap to the rows above and below.
        inset = 2 if height == 1 else 0
        x, y, width, height = x * WIDTH, y * HEIGHT + inset, (count - 1 + width) * WIDTH, height * HEIGHT - 2 * inset
    opacity = SHADES.get(last, 0.6 if dim else 1)
    faint = f' opacity="{opacity}"' if opacity < 1 else ""
    return f'<rect x="{left + x:.1f}" y="{top + y:g}" width="{width:.2f}" height="{height:g}" fill="{ink}"{faint}/>'


def svg(screen, columns, rows):
    """The picture of a screen, as `tmux capture-pane -e` prints it."""
    width, height = columns * WIDTH + 24, rows * HEIGHT + 24
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">',
           "<title>The aiproxy dashboard</title>",
           f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
           f'<g font-family="{FONTS}" font-size="{FONT}" fill="{INK}">']
    for row, line in enumerate(screen.splitlines()[:rows]):
        column, top = 0, 12 + row * HEIGHT
        for text, style in runs(line):
            ink, ground = style.get("ink") or INK, style.get("ground")
            if style.get("reverse"):
                ink, ground = ground or GROUND, ink
            if ground:
                out.append(f'<rect x="{12 + column * WIDTH:.1f}" y="{top}" width="{cells(text) * WIDTH:.1f}" height="{HEIGHT}" fill="{ground}"/>')
            more = "".join(f' {name}' for name, wanted in (('font-weight="bold"', "bold"), ('opacity="0.6"', "dim"), ('font-style="italic"', "italic"),
                                                          ('text-decoration="underline"', "underline")) if style.get(wanted))
            for offset, piece in pieces(text):
                left, wide = 12 + (column + offset) * WIDTH, cells(piece) * WIDTH
                if piece[0] in DRAWN:
                    out.append(shape(piece, left, top, ink, style.get("dim")))
                elif piece.strip():
                    out.append(f'<text x="{left:.1f}" y="{top + 13}" textLength="{wide:.1f}" lengthAdjust="spacingAndGlyphs" fill="{ink}"{more} '
                               f'xml:space="preserve">{escape(piece)}</text>')
            column += cells(text)
    return "\n".join([*out, "</g>", "</svg>", ""])
