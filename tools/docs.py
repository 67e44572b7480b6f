"""Build the documentation: an offline site in `_docs/` from the notebooks, and `README.md` from
the index notebook.

    python tools/docs.py            # build and check the site, write README.md
    python tools/docs.py --check    # build and check the site, fail if README.md is not what the
    notebook says

nbdev prepares the notebooks in `_proc/` (signatures, links to symbols; it runs only their imports
and exported cells),
smalldocs renders them with the options in `nbs/_quarto.yml`, and pandoc writes the formulas and the
README. The site
opens from disk, without a network. The package must be installed (`pip install -e .[dev]`), or no
symbol has a link.
"""

import html
import json
import os
import re
import sys
import time
from argparse import ArgumentParser
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from nbdev.config import get_config, nbpath2html
from nbdev.doclinks import NbdevLookup, _build_modidx, nbglob
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs

try:
    import pypandoc
    from smalldocs import config, markdown, notebook, site
except ImportError as e:
    sys.exit(f'docs: {e}: `pip install -e .[dev]` (smalldocs needs Python 3.11 or later)')

# What a style or a script would load from elsewhere
REMOTE = re.compile(
    r"""(?:url\(|@?import[\s(]|\bfrom\s|\bfetch\(|\.src\s*=)\s*["']?(?:https?:)?//[^\s"')]+"""
)
# A page opened from disk must not fetch the search index, but may load it as a script
SEARCH = """if (location.protocol === 'file:') window.fetch = url => new Promise(done => {
  const s = document.createElement('script');
  s.src = url + '.js'; s.onload = () => done({json: () => window.searchIndex});
  document.head.append(s); });
"""


class NbSite(site.Site):
    """A smalldocs site with nbdev's page names, relative links between its pages, and formulas
    that need no script"""

    def __init__(self, project, base, out):
        super().__init__(project, quiet=True)
        self.base, self.out, self.auto = base, out, set()

    def read(self, src):
        page = super().read(src)
        if src.suffix == '.ipynb':
            page.out = PurePosixPath(nbpath2html(src).as_posix())
        return page

    def find_page(self, target):
        return super().find_page(target) or next(
            (p for p in self.pages.values() if p.out == target), None
        )

    def resolve(self, href, page, record=True):
        if not href.startswith(self.base):
            return super().resolve(href, page, record)
        res = super().resolve(
            '/' + href[len(self.base) :], page, record
        )  # nbdev links a symbol to its hosted page
        self.auto.add(res)
        return res

    def render_page(self, page):
        super().render_page(page)
        page.html, page.env['math'] = (
            mathml(page.html),
            False,
        )  # else the page loads KaTeX from a CDN


def mathml(text):
    "`text` with its TeX formulas as MathML, which browsers draw themselves"
    pat = re.compile(r'<span class="math (?:inline|display)">\\([(\[])(.*?)\\[)\]]</span>', re.S)
    tex = [(k, ' '.join(html.unescape(o).split())) for k, o in pat.findall(text)]
    if not tex:
        return text
    md = '\n\n'.join(f'${o}$' if k == '(' else f'$${o}$$' for k, o in tex)
    res = pypandoc.convert_text(md, 'html', format='markdown', extra_args=['--mathml'])
    res = re.findall(r'<math.*?</math>', res, re.S)
    if len(res) != len(tex):
        sys.exit(f'docs: pandoc cannot read one of these formulas: {[o for _, o in tex]}')
    res = iter(res)
    return pat.sub(lambda m: next(res), text)


class Refs(HTMLParser):
    "The ids of a page, what it refers to in the site, and what it needs from elsewhere"

    def __init__(self, path):
        super().__init__()
        self.ids, self.local, self.remote = set(), [], []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        for k, v in attrs:
            if k == 'id':
                self.ids.add(v)
            elif k == 'style':
                self.remote += REMOTE.findall(v or '')
            elif k in ('href', 'src', 'data', 'poster') and v:
                u = urlsplit(v)
                if not (u.scheme or u.netloc):
                    self.local.append(v)
                elif tag != 'a' and u.scheme != 'data':
                    self.remote.append(v)

    def handle_data(self, data):
        if self.cdata_elem:
            self.remote += REMOTE.findall(data)  # in a <style> or <script>


def write_sources(lib, out):
    "The modules of `lib` as pages of the site, a line an anchor; nbdev's source links lead there"
    for f in lib.rglob('*.py'):
        lines = enumerate(f.read_text(encoding='utf-8').splitlines(), 1)
        page = out / 'source' / f.relative_to(lib.parent).with_suffix('.html')
        page.parent.mkdir(parents=True, exist_ok=True)
        body = '\n'.join(f'<span id="L{i}">{html.escape(o)}</span>' for i, o in lines)
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><title>{f.stem}</title><pre>{body}</pre>',
            encoding='utf-8',
        )


def edit(f, func):
    f.write_text(func(f.read_text(encoding='utf-8')), encoding='utf-8')


def finish(out, auto):
    """Have the site in `out` work without network and server; point `auto` links at the nearest
    heading there is"""
    for f in out.rglob('*.css'):
        edit(f, lambda s: re.sub(r'@import url\(["\']?https?:[^)]*\);?', '', s))  # web fonts
    edit(out / 'site_libs' / 'smalldocs.js', lambda s: SEARCH + s)
    index = (out / 'search.json').read_text(encoding='utf-8')
    (out / 'search.json.js').write_text(f'window.searchIndex = {index};', encoding='utf-8')
    ids = {p: Refs(p).ids for p in out.rglob('*.html')}
    for p in ids:

        def fix(m):
            # nbdev links methods and private functions, even where the page does not show them
            if f'{m[1]}#{m[2]}' not in auto:
                return m[0]
            known = ids.get((p.parent / m[1]).resolve(), ())
            return (
                f'href="{m[1]}'
                + next((f'#{o}' for o in (m[2], m[2].rpartition('.')[0]) if o in known), '')
                + '"'
            )

        up = '../' * len(p.relative_to(out).parent.parts)
        source = lambda s: re.sub(
            r'href="[^"]*blob/\w+/(\S+?)\.py(#L\d+)?"', rf'href="{up}source/\1.html\2"', s
        )
        edit(p, lambda s: source(re.sub(r'href="([^"#]+)#([^"]+)"', fix, s)))


def check_site(out, nbs):
    """What is wrong with the site in `out`: notebooks without a page of their own, broken links,
    remote resources"""
    bad, refs, pages = (
        [],
        {p: Refs(p) for p in out.rglob('*.html')},
        [out / nbpath2html(o) for o in nbs],
    )
    bad += [
        f'{o}: has no page of its own'
        for o, p in zip(nbs, pages)
        if p not in refs or pages.count(p) > 1
    ]
    for p, r in refs.items():
        for url in r.local:
            u = urlsplit(url)
            to, anchor = (
                (p.parent / unquote(u.path)).resolve() if u.path else p,
                unquote(u.fragment),
            )
            if (
                not to.is_file()
                or out not in to.parents
                or (anchor and to in refs and anchor not in refs[to].ids)
            ):
                bad.append(f'{p.relative_to(out)}: broken link {url}')
    remote = {p: r.remote for p, r in refs.items()}
    remote |= {f: REMOTE.findall(f.read_text(encoding='utf-8')) for f in out.rglob('*.css')}
    return bad + [
        f'{p.relative_to(out)}: needs the network for {o}' for p, r in remote.items() for o in r
    ]


def show_as_told(cell):
    "Leave out of a code cell what its options hide, and make its outputs ones that pandoc can read"
    opts, cell['source'] = notebook.cell_options(notebook.source(cell))
    if False in (opts.get('echo'), opts.get('include')):
        cell['source'] = ''
    if False in (opts.get('output'), opts.get('include')):
        cell['outputs'] = []
    for o in cell['outputs']:
        if 'text' in o:
            # carriage returns of progress bars: read back, README.md would differ
            o['text'] = notebook.source(dict(source=o['text'])).replace('\r', '')
        # pandoc wants a result to have a count, which cleaned notebooks lack
        if o['output_type'] == 'execute_result':
            o['execution_count'] = 0


def readme(cfg, proc, base, nbs):
    "The text of README.md, from the processed index notebook, and its links that lead nowhere"
    nb, bad = json.loads((proc / cfg.readme_nb).read_text(encoding='utf-8')), []
    meta, _ = markdown.split_front_matter(notebook.source(nb['cells'][0]))
    if meta:
        nb['cells'].pop(0)
    for c in nb['cells']:
        if c['cell_type'] == 'code':
            show_as_told(c)
    pages = {p: o for o in nbs for p in (o.as_posix(), nbpath2html(o).as_posix())}

    def link(url):
        "To the hosted page of a notebook if there is one, to a file of the repository otherwise"
        u = urlsplit(url[len(base) :] if url.startswith(base) else url)
        if u.scheme or u.netloc or not u.path:
            return url
        nb = pages.get(u.path)
        if nb and cfg.doc_host:
            return base + u._replace(path=nbpath2html(nb).as_posix()).geturl()
        path = f'{cfg.nbs_path.name}/{nb or u.path}'
        if not (cfg.config_path / path).exists():
            bad.append(
                f'README.md: broken link {url}; a README shows picture files, not pictures a cell '
                'draws'
            )
        return path

    def walk(o):
        if isinstance(o, dict) and o.get('t') in ('Link', 'Image'):
            o['c'][2][0] = link(o['c'][2][0])
        for x in o.values() if isinstance(o, dict) else o if isinstance(o, list) else ():
            walk(x)

    doc = json.loads(pypandoc.convert_text(json.dumps(nb), 'json', format='ipynb'))
    walk(doc['blocks'])
    body = pypandoc.convert_text(
        json.dumps(doc), 'gfm-raw_html', format='json', extra_args=['--wrap=preserve']
    )
    # cells that only show their output
    body = re.sub(r'^``` python\n```\n\n?', '', body, flags=re.M)
    desc = f'> {meta["description"]}\n\n' if 'description' in meta else ''
    return f'# {meta.get("title", cfg.title)}\n\n{desc}{body}', bad


def main(check=False):
    start = time.time()

    def say(s):
        print(f'docs: {s} ({time.time() - start:.0f}s)', flush=True)

    cfg = get_config(Path(__file__).parent)
    os.chdir(cfg.config_path)  # nbdev reads its settings from the working folder
    lib, out, base = cfg.lib_path.name, cfg.doc_path.resolve(), cfg.doc_url.rstrip('/') + '/'
    nbs = [o.relative_to(cfg.nbs_path) for o in nbglob(as_path=True)]
    refresh_quarto_yml()
    _build_modidx()
    nbdev_sidebar()
    spec = find_spec(lib)
    if (
        not spec
        or Path(spec.origin).resolve().parent != cfg.lib_path.resolve()
        or lib not in NbdevLookup().entries
    ):
        sys.exit(f'docs: {lib} is not installed from this folder: `pip install -e .[dev]`')
    proc = proc_nbs(cfg.nbs_path, n_workers=2, force=True)
    say(f'{len(nbs)} notebooks processed')
    s = NbSite(config.load(proc), base, out)
    try:
        n = s.build()
    except (config.BuildError, config.ConfigError) as e:
        sys.exit(f'docs: {e}')
    write_sources(cfg.lib_path, out)
    finish(out, s.auto)
    say(f'{n} pages rendered to {out.name}/')
    text, bad = readme(cfg, proc, base, nbs)
    bad += check_site(out, nbs)
    if bad:
        sys.exit('\n'.join(['docs: errors in the site', *dict.fromkeys(bad)]))
    say('links and resources checked')
    f = cfg.config_path / 'README.md'
    same = f.exists() and f.read_text(encoding='utf-8') == text
    if check and not same:
        sys.exit(f'docs: README.md is out of step with {cfg.readme_nb}: run `python tools/docs.py`')
    if not same:
        f.write_text(text, encoding='utf-8')
    say(f'README.md {"is up to date" if same else "written"}')


if __name__ == '__main__':  # nbdev's workers import this file
    p = ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        '--check',
        action='store_true',
        help='leave README.md as it is, and fail if it is out of step',
    )
    main(**vars(p.parse_args()))
