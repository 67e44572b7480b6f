"A real JupyterLab with a real kernel, in a headless Chromium"

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

CHROMIUM = next(
    (
        path
        for name in ('chromium', 'chromium-browser', 'google-chrome')
        if (path := shutil.which(name))
    ),
    None,
)
PICTURES = Path(os.environ.get('SCREENSHOTS', Path(__file__).parent.parent / '_screenshots'))
TOKEN = 'only-for-tests'


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def write_notebook(path: Path, cells: list[str]):
    "A notebook of code cells"
    cells = [
        dict(
            cell_type='code',
            id=f'cell{i}',
            metadata={},
            source=source,
            outputs=[],
            execution_count=None,
        )
        for i, source in enumerate(cells)
    ]
    kernel = dict(display_name='Python 3 (ipykernel)', language='python', name='python3')
    path.write_text(
        json.dumps(
            dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
        )
    )


@contextlib.contextmanager
def jupyter_lab(folder: Path):
    "The address of a JupyterLab that serves `folder` on this machine alone"
    port = free_port()
    own = {
        f'JUPYTER_{name}_DIR': str(folder / f'.{name.lower()}')
        for name in ('CONFIG', 'DATA', 'RUNTIME')
    } | dict(
        JUPYTERLAB_WORKSPACES_DIR=str(folder / '.workspaces'),
        JUPYTERLAB_SETTINGS_DIR=str(folder / '.settings'),
        IPYTHONDIR=str(folder / '.ipython'),
    )
    (folder / '.config' / 'labconfig').mkdir(parents=True)
    (folder / '.config' / 'labconfig' / 'page_config.json').write_text(
        json.dumps(dict(disabledExtensions={'@jupyterlab/apputils-extension:announcements': True}))
    )  # nothing pops up
    tracker = (
        folder / '.settings' / '@jupyterlab' / 'notebook-extension' / 'tracker.jupyterlab-settings'
    )
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps(dict(windowingMode='none')))  # cells stay where they are
    command = [
        sys.executable,
        '-m',
        'jupyterlab',
        '--no-browser',
        '--ip=127.0.0.1',
        f'--port={port}',
        f'--IdentityProvider.token={TOKEN}',
        f'--ServerApp.root_dir={folder}',
        '--allow-root',
        '--ServerApp.port_retries=0',
        '--expose-app-in-browser',
    ]
    with open(folder / '.jupyter.log', 'w') as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, **own},
            start_new_session=True,
        )
    address = f'http://127.0.0.1:{port}'
    try:
        wait_for(lambda: urllib.request.urlopen(f'{address}/api?token={TOKEN}', timeout=2), 60)
        yield address
    except BaseException:
        print((folder / '.jupyter.log').read_text()[-3000:])
        raise
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def wait_for(true, seconds: float):
    "What `true()` gives once it gives something"
    until, why = time.monotonic() + seconds, None
    while time.monotonic() < until:
        try:
            if found := true():
                return found
        except OSError as e:
            why = e
        time.sleep(0.1)
    raise TimeoutError(f'Nothing within {seconds} seconds: {why}')


@contextlib.contextmanager
def opened(
    address: str, notebook: str, program: str = 'lab'
):  # or 'notebooks', which Notebook 7 answers
    "A page with the notebook, its kernel ready, and all that it asked of other machines"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-dev-shm-usage']
        )
        try:
            page = browser.new_page(viewport=dict(width=1100, height=1000))
            page.abroad = []
            page.route(
                lambda url: (
                    not url.startswith((address, address.replace('http', 'ws'), 'data:', 'blob:'))
                ),
                lambda route: (page.abroad.append(route.request.url), route.abort()),
            )
            where = (
                f'lab/workspaces/w{time.monotonic_ns()}/tree' if program == 'lab' else program
            )  # a workspace of its own: no tabs from before
            page.goto(f'{address}/{where}/{notebook}?token={TOKEN}')
            page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=120_000)
            page.wait_for_selector(
                '.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=120_000
            )
            yield page
        finally:
            browser.close()


def run_cell(page, i: int):
    """Click into cell `i` and press Shift-Enter, until it runs: a page that has just opened may
    miss the first try"""
    from playwright.sync_api import Error

    cell = page.locator('.jp-Notebook .jp-Cell').nth(i)
    prompt = cell.locator('.jp-InputPrompt')
    before = prompt.inner_text()

    def runs():
        try:
            for button in page.locator('.jp-Dialog .jp-mod-accept').all():
                button.click(
                    timeout=1000
                )  # a kernel that was killed is started again, and JupyterLab says so
            cell.locator('.cm-content').click(timeout=3000, position=dict(x=5, y=5))
        except Error:
            return False
        page.keyboard.press('Shift+Enter')
        for _ in range(40):
            if prompt.inner_text() not in (before, '[ ]:'):
                return True
            page.wait_for_timeout(50)

    try:
        wait_for(runs, 40)
    except TimeoutError:
        snapshot(page, 'no_cell_ran')
        raise


def finish_cell(page, i: int):
    """Run cell `i` until it has a number: JupyterLab may replace a kernel that has just started,
    and then drops what it was to run"""
    prompt = page.locator('.jp-Notebook .jp-Cell').nth(i).locator('.jp-InputPrompt')
    for _ in range(3):
        run_cell(page, i)
        for _ in range(300):
            page.wait_for_timeout(200)
            if prompt.inner_text() == '[ ]:':
                break
            if prompt.inner_text() != '[*]:':
                return
    raise TimeoutError(f'Cell {i} does not finish: {prompt.inner_text()}')


def snapshot(page, name: str, of: str | None = None):
    "A picture of the page, or of the first part of it that `of` selects"
    PICTURES.mkdir(parents=True, exist_ok=True)
    (page.locator(of).first if of else page).screenshot(path=PICTURES / f'{name}.png')
