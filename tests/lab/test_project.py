"""The report of a real project: its numbers are those that a hand count gives, whatever the items
and names are"""

import base64
import re
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from test_report import EVIL, Read, pictures

from conftest import class_of, forked, pool_learner, small_pool
from fastai_al.active_learner import ActiveLearner
from fastai_al.lab.ledger_facts import (
    annotators_of_project,
    balance_of_project,
    metric_interval,
    rounds_of_project,
    share_interval,
    triages_of_project,
)
from fastai_al.lab.project import main, write_project_report
from fastai_al.lab.project_base import Project, forecast_of
from fastai_al.lab.project_people import criterion_of, stops_of
from fastai_al.loop.forecast import forecast
from fastai_al.loop.stopping import Plateau, StabilisingPredictions, UncertaintyLeft
from fastai_al.pool.ledger import Event
from fastai_al.pool.pool import Pool

matplotlib.use('Agg')
LEDGER_0_11_0 = Path(__file__).parents[1] / 'pool' / 'ledger-0.11.0.sqlite'
NAMES = ['猫', 'חתול', 'قطة', 'γάτα', EVIL, '\u202egnp.evil', 'a\x00b', '_x$1$']


def texts(n=40, **kwargs):
    return Pool([f'text {i}' for i in range(n)], uids=[f't{i}' for i in range(n)], **kwargs)


def query(pool, n=3, by='bald', labelled=None, score=1.0, **metrics):
    "A query as `acquire_from_pool` records it"
    uids = list(pool.unlabelled.index[:n])
    held = pool.holdout
    known = int(held[pool.label_column].notna().sum()) if len(held) else None
    note = dict(
        acquisition=by,
        task='classes',
        labelled=len(pool.labelled) if labelled is None else labelled,
        metrics=dict(train_loss=1.0, **metrics),
        validated=known,
    )
    pool.record_acquisition(uids, [score] * n, by=by, note=note)
    return uids


def project(db=':memory:', rounds=6):
    "A hold-out of ten, four first labels, and rounds of three by two people"
    pool = texts(db=db)
    pool.label(pool.draw_holdout(10), ['a', 'b'] * 5, annotator='anna', seconds=2)
    pool.label(pool.sample(4), ['a', 'b', 'b', 'b'], annotator='anna', seconds=[1, 2, 3, 60])
    for r in range(rounds):
        uids = query(pool, valid_loss=1 - 0.1 * r, accuracy=[0.4, 0.5, 0.6, 0.7, 0.8, 0.8][r])
        pool.label(uids[:2], ['a', 'c'], annotator='ben', seconds=4)
    return pool


def page_of(pool, tmp_path, **kwargs):
    return pool.report(tmp_path / 'p.html', **kwargs).read_text('utf-8')


def words(page):
    return re.sub(r'\s+', ' ', Read(page).words)


def table(page, heading):
    "Cells of the first table below a heading"
    part = page.split(f'<h2>{heading}</h2>')[1].split('</section>')[0]
    rows = re.findall(r'<tr>(.*?)</tr>', part, re.DOTALL)
    return [
        [re.sub('<[^>]*>', '', c) for c in re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row)]
        for row in rows
    ]


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    pool = project()
    return pool, page_of(pool, tmp_path_factory.mktemp('done'))


def test_each_round_is_counted(done):
    pool, page = done
    head, *rows = table(page, 'Rounds')
    assert head == [
        'round',
        'date',
        'labels',
        'accuracy',
        'validation loss',
        'strategy',
        'queried',
        'answered',
        'seconds per label',
    ]
    assert [r[0] for r in rows] == list('123456') and rows[0][1] == time.strftime(
        '%Y-%m-%d', time.gmtime()
    )
    assert [r[2] for r in rows] == ['4', '6', '8', '10', '12', '14']
    # of ten hold-out items; ends by Clopper and Pearson's table
    assert rows[1][3] == '50.0% (18.7% to 81.3%)' and rows[4][3] == '80.0% (44.4% to 97.5%)'
    # a queried item without an answer is queried again, and answered in the next round
    assert [r[7] for r in rows] == ['3'] * 5 + ['2']
    assert rows[0][4:] == ['1', 'bald', '3', '3', '4']


def test_intervals_are_exact_and_only_of_shares():
    assert np.allclose(share_interval(8, 10), [0.44390, 0.97479], atol=1e-5)
    assert share_interval(0, 10)[0] == 0 and np.isclose(share_interval(0, 10)[1], 1 - 0.025**0.1)
    assert share_interval(10, 10) == pytest.approx((0.025**0.1, 1.0))
    for name, value, n in (
        ('accuracy', 0.85, 10),  # of other items than these ten
        ('f1_score', 0.8, 10),
        ('accuracy', None, 10),
        ('accuracy', 0.8, None),
        ('accuracy', 0.8, 0),
        ('accuracy', np.nan, 10),
    ):
        assert metric_interval(name, value, n) is None


def test_of_1000_hold_outs_95_percent_hold_the_truth():
    rng, n, p = np.random.default_rng(0), 60, 0.83
    ends = [share_interval(k, n) for k in rng.binomial(n, p, 1000)]
    assert np.mean([low <= p <= high for low, high in ends]) >= 0.95


def test_items_and_classes_are_counted(done):
    pool, page = done
    assert '40 items' in page and '<b>16</b> labelled<small>40%</small>' in page
    assert '10 of its 10 items are labelled' in page
    assert table(page, 'Classes') == [
        ['class', '', 'labelled', 'share', 'hold-out', 'share'],
        ['a', '', '7', '44%', '5', '50%'],
        ['c', '', '6', '38%', '0', '0%'],
        ['b', '', '3', '19%', '5', '50%'],
    ]


def test_people_and_their_seconds_are_counted(done):
    pool, page = done
    rows = table(page, 'People')
    assert [r[:5] for r in rows] == [
        ['annotator', 'labelled', 'skipped', 'ignored', 'seconds per label'],
        ['anna', '14', '0', '0', '2'],
        ['ben', '12', '0', '0', '4'],
    ]
    assert [r[5] for r in rows[1:]] == ['86 s', '48 s']  # 10 * 2 + 1 + 2 + 3 + 60, and 12 * 4
    assert '2 people gave 26 labels. Recorded time: 2 min in all, 3.5 seconds for a label' in page


def test_an_answer_counts_as_it_stands_and_time_as_it_was_spent():
    pool = texts(6)
    pool.label('t0', 'a', annotator='anna', seconds=5)
    pool.label('t0', 'b', annotator='anna', seconds=7)
    pool.label('t1', 'a', annotator='anna', seconds=3)
    pool.retract('t1', annotator='anna')
    pool.skip('t2', annotator='anna', seconds=2)
    pool.ignore('t3', annotator='anna')
    pool.ignore('t4', annotator='reader')
    pool.write([Event('t5', 'label', 'b', 'anna', note={'undo': True})])
    row = annotators_of_project(pool).loc['anna']
    assert row[['labelled', 'skipped', 'ignored', 'seconds', 'timed']].tolist() == [2, 1, 1, 17, 4]
    assert row['per_label'] == 5 and len(annotators_of_project(pool)) == 1


def test_the_summary_says_the_same(done):
    text = words(done[1])
    assert '16 of 40 items (40%) have a label to train on. 10 labelled items more measure' in text
    assert (
        'With 14 labels, accuracy is 80.0% (95% interval 44.4% to 97.5%, on 10 hold-out items). '
        'It was 40.0% with 4.'
    ) in text


def test_agreement_is_that_of_the_pool(tmp_path):
    pool = texts(8)
    pool.label([f't{i}' for i in range(4)], ['a', 'b', 'a', 'b'], annotator='anna')
    assert 'no item was labelled by two people' in page_of(pool, tmp_path)
    pool.label([f't{i}' for i in range(4)], ['a', 'b', 'b', 'b'], annotator='ben')
    page = page_of(pool, tmp_path)
    assert (
        "Agreement of 2 people on 4 items: Fleiss' kappa" in words(page)
        and '<td>4</td><td>0.750</td><td>0.500</td>' in page
    )  # three of four; chance is 1/2


def test_the_forecast_is_that_of_the_rounds(done, tmp_path):
    pool, page = done
    scores = [0.4, 0.5, 0.6, 0.7, 0.8, 0.8]
    expected = forecast([4, 6, 8, 10, 12, 14], scores, 0.8, metric='accuracy')
    middle = expected.at(28).middle.item()
    assert f'expects accuracy {100 * middle:.1f}% with 28 labels' in words(page)
    page = page_of(pool, tmp_path, target=0.9)
    assert str(forecast([4, 6, 8, 10, 12, 14], scores, 0.9, metric='accuracy')) in words(page)
    few = project(rounds=3)
    assert 'needs 5. Run more rounds first' in page_of(few, tmp_path)
    assert 'needs 5' in forecast_of(Project(few))


def test_criteria_decide_again_from_the_ledger(tmp_path):
    pool = project()
    two = Plateau('accuracy', rounds=2)
    keep = lambda seen: [dict(labels='', model=str(i), seen=s) for i, s in enumerate(seen)]
    pool.ledger[f'stopping: {two}'] = keep([0.7, 0.8, 0.8, 0.79])
    pool.ledger[f'stopping: {Plateau("accuracy")}'] = keep([0.7, 0.8, 0.8, 0.81])
    settled = StabilisingPredictions(rounds=1)
    pool.ledger[f'stopping: {settled}'] = keep([['a', 'b', 'a'], ['a', 'b', 'a']])
    pool.ledger['stopping: Mine(x=<lambda>)'] = keep([1])
    assert stops_of(Project(pool)) == {
        str(two): (
            4,
            'accuracy has not improved by more than 0 for 2 rounds: best 0.8 before, 0.8 since',
        ),
        str(Plateau('accuracy')): (4, ''),
        str(settled): (
            2,
            'predictions have settled: the last 2 models agree on 3 items, kappa 1.0000 on '
            'average, at least 0.99',
        ),
        'Mine(x=<lambda>)': (1, None),
    }
    page = words(page_of(pool, tmp_path))
    assert 'It may be time to stop: accuracy has not improved' in page and 'not met' in page
    for criterion in (two, settled, UncertaintyLeft(0.5)):
        assert criterion_of(repr(criterion)) == criterion
    for text in ('os.remove("x")', 'Plateau(', '__import__("os")', 'Plateau(rounds=-1)', '(' * 500):
        assert criterion_of(text) is None


NOTE = dict(guarantee='pool', error=0.05, delta=0.1, rounds=2, population=40)


def triaged(pool, **acts):
    "A triage as `pool.apply` records it"
    events = [
        Event(u, 'pseudo', 'a', 'triage 1', note=dict(decision='pseudo', why='sure') | NOTE)
        for u in ('t30', 't31', 't32')
    ]
    events += [
        Event('t33', 'ignore', None, 'triage 1', note=dict(decision='ignore', why='odd') | NOTE),
        Event('t34', 'retract', None, 'triage 1', note=dict(decision='annotate', why='') | NOTE),
    ]
    known = dict(made=1, standing=['triage 1'], spent={}, held_out={}, times={'triage 1': 0.0})
    pool.write(events, dict(acts=known | acts))
    return pool


def test_a_triage_is_reported_with_what_it_guarantees(tmp_path):
    pool = triaged(texts())
    (o,) = triages_of_project(pool)
    assert (o.decided, o.in_force, o.standing) == (dict(pseudo=3, ignore=1, annotate=1), 3, True)
    pool.label('t30', 'b', annotator='anna')
    page = words(page_of(pool, tmp_path))
    assert (
        "3 items took the model's label (2 still have it). Left to people: 1. Ignored: 1." in page
    )
    assert (
        '90% confidence (delta 0.1): the error rate (or mean loss) is at most 0.05, over the 40 '
        'items that the hold-out was drawn from, without the hold-out. Its assumptions are not in '
        'this ledger.'
    ) in page
    recorded = dict(
        guarantees=['95% confidence: at most 2 of 30 items get a wrong label.'],
        warnings=[],
        assumptions=['BROKEN: 3 of these items joined later.', 'Another one.'],
    )
    page = page_of(triaged(texts(), reports={'triage 1': recorded}), tmp_path)
    assert '<p class="alarm">BROKEN: 3 of these items' in page
    assert 'An assumption of its guarantee is violated; see below.' in page
    assert recorded['guarantees'][0] in page and '<li>Another one.</li>' in page
    page = words(page_of(triaged(texts(), standing=[]), tmp_path))
    assert 'Revoked: triage 1.' in page and 'confidence' not in page


def dangers(page):
    "What a page must not have: elements that run or load, and names that are not data"
    read = Read(page)
    tags = {'script', 'link', 'iframe', 'object', 'embed', 'form', 'base', 'video', 'audio'}
    found = [*(tags & {*read.tags}), *(a for a in read.attributes if a.startswith('on'))]
    found += re.findall(r'(?:src|href|action)="(?!data:image/)[^"]*', page)
    return found + re.findall(r'url\([^)]*|@import|https?://[^<"\s]*', page)


@pytest.mark.parametrize('names', (True, False))
def test_nothing_of_others_is_run_and_each_name_is_drawn(tmp_path, names):
    folder = tmp_path / 'of anna'
    folder.mkdir()
    items = [*NAMES[:6], *NAMES[7:]] * 2
    rows = pd.DataFrame(dict(text=[f'{c} {i}' for i, c in enumerate(items)]))
    pool = Pool.from_df(rows.assign(id=rows.text), 'text', uid='id', db=folder / f'{names}.db')
    pool.ledger['vocab'] = NAMES
    for u, c in zip(query(pool, len(NAMES), by=EVIL, accuracy=0.5), NAMES):
        pool.label(u, c, annotator=c)
    pool.ledger[f'stopping: {EVIL}'] = [dict(seen=EVIL)]
    page = page_of(pool, tmp_path, title=EVIL, names=names)
    assert not dangers(page) and '\x00' not in page and str(folder) not in page
    for c in NAMES[:5]:
        assert c in Read(page).words
    people = table(page, 'People')[1:]
    assert (people[0][0] == 'annotator 1') is not names and len(people) == len(NAMES)
    classes = page.split('<h2>Classes</h2>')[1].split('</section>')[0]
    assert '<bdi>חתול</bdi>' in classes and '<bdi>猫</bdi>' in classes
    assert 'a\ufffdb' in classes and 'of anna' not in page


def test_each_picture_has_a_text_and_each_table_a_name(done, tmp_path):
    pages = [done[1], page_of(Pool(pictures(tmp_path, 5), root=tmp_path), tmp_path)]
    files = Pool(pictures(tmp_path, 5), root=tmp_path)
    files.label(query(files, 3)[:2], ['cat', 'dog'])
    pages.append(page_of(files, tmp_path))
    assert pages[2].count('<figure><img alt="item, label: ') == 3
    for page in pages:
        assert all(re.findall(r'<img alt="([^"]+)"', page)) and page.count('<img') == page.count(
            '<img alt="'
        )
        assert not dangers(page) and '<html lang="en">' in page and 'name="viewport"' in page
        assert page.count('class="wide" tabindex="0"') == len(
            re.findall('class="wide" tabindex="0" role="group" aria-label="[^"]+"', page)
        )


def brightness(color):
    "Relative luminance, by WCAG 2.2"
    color = color if len(color) == 6 else ''.join(c * 2 for c in color)
    parts = [int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_all_text_has_contrast(done):
    "WCAG AA: 4.5 to 1, on the darkest of the light grounds"
    grounds = re.findall(r'background: #([0-9a-f]{3,6})', done[1].split('</style>')[0])
    light = [g for g in grounds if brightness(g) > 0.5]
    for color in re.findall(r'(?<!-)color: #([0-9a-f]{3,6})', done[1].split('</style>')[0]):
        worst = min((brightness(g) + 0.05) / (brightness(color) + 0.05) for g in light)
        assert worst >= 4.5, color


def test_what_the_curve_shows_is_text(done):
    (data,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', done[1])
    svg = base64.b64decode(data).decode()
    assert '>accuracy</text>' in svg and '>labels to train on</text>' in svg
    assert 'glyph' not in svg.lower() and '<script' not in svg


def test_nothing_known_is_a_readable_report(tmp_path):
    for pool in (texts(5), Pool([]), Pool(['a'])):
        page = page_of(pool, tmp_path)
        assert 'Not in this report' in page and 'learn.acquire(n)' in page and '<img' not in page
        assert '<h2>Rounds' not in page and '<h2>People' not in page and 'nan' not in page.lower()
    page = page_of(Pool(['a', 'b'], labels=['cat', None]), tmp_path)
    assert table(page, 'Classes')[1] == ['cat', '', '1', '100%']
    assert 'all labels came with the data' in page


def test_a_thousand_classes(tmp_path):
    labels = [f'class {i}' for i in range(1000)]
    pool = Pool([str(i) for i in range(2000)], labels=labels + ['class 7'] * 3 + [None] * 997)
    rows = table(page_of(pool, tmp_path), 'Classes')
    assert rows[1] == ['class 7', '', '4', '0.4%'] and len(rows) == 16
    assert rows[-1] == ['986 more', '', '986', '']


def kinds(tmp_path):
    "Pools of tables, masks, boxes, several classes and numbers, with a query"
    rows = pd.DataFrame(dict(age=range(20), note=[EVIL] * 20, id=[f'p{i}' for i in range(20)]))
    yield Pool.from_df(rows, ['age', 'note'], uid='id'), ['a', 'b', 'a', 'a'], 'a, 3 of 4'
    files = pictures(tmp_path, 20)
    yield Pool(files, root=tmp_path), [f'masks/{i}.png' for i in range(4)], None
    box = {'boxes': [[0, 0, 2, 2], [1, 1, 3, 3]], 'labels': ['cat', 'cat']}
    yield Pool(files, root=tmp_path), [box, box, {'boxes': [], 'labels': []}, box], 'cat, 3 of 4'
    yield texts(), [['a', 'b'], ['a'], [], ['b', 'b']], 'a, 2 of 4'
    yield texts(), [0.5, 1.25, 2.0, 7.5], 'median'
    yield Pool(range(20)), [1, 0, 1, 1], '1, 3 of 4'


def test_any_kind_of_item_and_label(tmp_path):
    for pool, labels, expected in kinds(tmp_path):
        pool.label(query(pool, 4), labels, annotator='anna')
        page = page_of(pool, tmp_path)
        assert 'Last query' in page and page.count('<figure') == 4 and not dangers(page)
        balance = balance_of_project(pool)
        if expected is None:
            assert balance.kind == 'other' and '<h2>Classes' not in page
        elif expected == 'median':
            assert '4 labels from 0.5 to 7.5, median 1.625' in words(page)
        else:
            name, n = expected.split(', ')
            assert f'{balance.labelled[name]} of {balance.items}' == n
        if balance.kind == 'boxes':
            assert '2 boxes: cat' in page and '0 boxes' in page


def test_files_that_are_gone(tmp_path):
    files = pictures(tmp_path, 6)
    pool = Pool(files, root=tmp_path, db=tmp_path / 'gone.db')
    query(pool, 4)
    for f in files:
        f.unlink()
    page = page_of(pool, tmp_path)
    assert '4 of 4 items can not be shown' in words(page) and '--root folder' in page
    assert str(tmp_path) not in page


def test_the_command_needs_the_ledger_alone(tmp_path, capsys, monkeypatch):
    db = tmp_path / 'labels.db'
    project(db).close()
    monkeypatch.chdir(tmp_path)
    assert main(['labels.db']) == Path('report.html')
    assert 'Labelling project: labels' in Path('report.html').read_text('utf-8')
    assert (tmp_path / 'report.html').as_uri() in capsys.readouterr().out
    page = main(['labels.db', '--out', 'b.html', '--target', '.9', '--no-names']).read_text('utf-8')
    assert 'anna' not in page and 'annotator 2' in page and 'Accuracy 0.9' in page
    before = db.read_bytes()
    with pytest.raises(ValueError, match='is not replaced'):
        main(['labels.db', '--out', 'labels.db'])
    assert db.read_bytes() == before
    with pytest.raises(FileNotFoundError, match='no ledger'):
        main(['none.db'])
    with pytest.raises(ValueError, match='is a folder'):
        main(['labels.db', '--out', '.'])
    Path('text.db').write_text('no ledger')
    with pytest.raises(ValueError, match='not a ledger|not a database'):
        main(['text.db'])


def test_an_old_ledger_and_one_without_its_items(tmp_path):
    old = tmp_path / 'old.db'
    old.write_bytes(LEDGER_0_11_0.read_bytes())
    page = main([str(old), '--out', str(tmp_path / 'old.html')]).read_text('utf-8')
    assert '<b>4</b> labelled' in page and table(page, 'Rounds')[1][0] == '1'
    db = tmp_path / 'arrays.db'
    arrays = Pool([np.zeros(3)] * 9, uids=[f'x{i}' for i in range(9)], db=db)
    arrays.label(query(arrays, 4), ['a', 'b', 'a', 'a'])
    arrays.close()
    page = main([str(db), '--out', str(tmp_path / 'arrays.html')]).read_text('utf-8')
    assert '<div dir="auto">x0</div>' in page and page.count('<figure') == 4
    assert table(page, 'Classes')[1][:3] == ['a', '', '3']
    before = Pool([np.zeros(3)] * 9, uids=[f'x{i}' for i in range(9)], db=db)
    assert len(before.labelled) == 4 and not before.ledger['pool']['kept']


def _labels_twice(db, opened, reported):
    pool = Pool([str(i) for i in range(9)], db=db)
    pool.label('3', 'a')
    opened.set()
    reported.wait(60)
    pool.label('4', 'b')


def test_a_ledger_that_another_process_has_open(tmp_path):
    db, processes = tmp_path / 'labels.db', forked()
    opened, reported = processes.Event(), processes.Event()
    other = processes.Process(target=_labels_twice, args=(db, opened, reported))
    other.start()
    assert opened.wait(60)
    page = main([str(db), '--out', str(tmp_path / 'r.html')]).read_text('utf-8')
    assert '<b>1</b> labelled' in page
    reported.set()
    other.join(60)
    assert other.exitcode == 0 and len(Pool.open(db).labelled) == 2


def test_a_report_changes_no_event_and_no_setting(tmp_path):
    pool = project(tmp_path / 'labels.db')
    before = pool.ledger.since(), pool.ledger.settings()
    for _ in range(2):
        page_of(pool, tmp_path, target=0.9)
    assert (pool.ledger.since(), pool.ledger.settings()) == before


def test_the_metric_is_one_that_was_measured(tmp_path):
    pool = project()
    page = words(page_of(pool, tmp_path, metric='valid_loss'))
    assert 'With 14 labels, validation loss is 0.5' in page
    with pytest.raises(ValueError, match='have accuracy, valid_loss'):
        page_of(pool, tmp_path, metric='f1')
    with pytest.raises(ValueError, match='have no metric'):
        page_of(texts(3), tmp_path, metric='f1')


def test_rounds_of_older_ledgers_count_their_hold_out():
    pool = texts()
    held = pool.draw_holdout(10)
    pool.label(held[:8], ['a'] * 8, annotator='anna')
    pool.record_acquisition(
        ['t1'], [1.0], by='bald', note=dict(labelled=2, metrics={'accuracy': 0.5})
    )
    pool.label(held[8:], ['a'] * 2, annotator='anna')
    pool.record_acquisition(['t2'], [1.0], by=None, note='mine')
    first, second = rounds_of_project(pool)
    assert first.validated == 8 and (second.by, second.labelled, second.metrics) == (None, None, {})


def test_nothing_is_left_drawn(tmp_path):
    import matplotlib.pyplot as plt

    plt.close('all')
    write_project_report(project(), tmp_path / 'r.html')
    assert not plt.get_fignums()


@pytest.fixture(scope='module')
def trained():
    "A learner after a round, with a triage that was applied"
    pool = small_pool(n=200, labelled=40, held=60)
    learn = ActiveLearner(pool_learner(pool), pool)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-2)
        queried = learn.acquire(5, by='bald')
        learn.label(queried, [class_of(u) for u in queried.uids], annotator='anna')
        learn.fit(1, 1e-2)
        decided = learn.triage(0.5, features=False)
    pool.apply(decided)
    return learn, decided


def test_a_learner_adds_its_latest_metrics(trained, tmp_path):
    learn, _ = trained
    rows = table(learn.report(tmp_path / 'r.html').read_text('utf-8'), 'Rounds')
    assert [r[0] for r in rows[1:]] == ['1', 'now'] and [r[2] for r in rows[1:]] == ['40', '45']
    share = 100 * learn.recorder.values[-1][-1]
    assert rows[2][3].startswith(f'{share:.1f}% (')
    assert [r.validated for r in rounds_of_project(learn.pool, learn)] == [60, 60]
    text = words(learn.pool.report(tmp_path / 'p.html').read_text('utf-8'))
    assert 'Train the learner and call' in text and 'now' not in [
        r[0] for r in table((tmp_path / 'p.html').read_text('utf-8'), 'Rounds')
    ]


def test_a_triage_records_what_it_guarantees(trained, tmp_path):
    learn, decided = trained
    (o,) = triages_of_project(learn.pool)
    assert o.report['guarantees'] == decided.guarantees() and decided.guarantees()
    assert o.report['assumptions'] == decided.assumptions
    assert o.decided == {k: n for k, n in decided.counts().items() if n}
    page = words(learn.report(tmp_path / 'r.html').read_text('utf-8'))
    assert decided.guarantees()[0] in page and decided.assumptions[0] in page
