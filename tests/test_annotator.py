"The kernel's side of the annotator, without a browser"
import json
import sys

import numpy as np
import pandas as pd
import pytest
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Learner, MaskBlock, PILImageBW, accuracy, nn
from PIL import Image

from fastai_al.annotate import annotator as module
from fastai_al.annotate.annotator import Annotator, GrowBeforeFit, fitted, read_mask, write_mask
from fastai_al.learner import ActiveLearner
from fastai_al.ledger import Ledger
from fastai_al.pool import Pool
from fastai_al.query import Query

PAYLOAD = '<script>alert(1)</script>'


class Page:
    "What a page says, and what it is told"
    def __init__(self, annotator): self.annotator, self.seq = annotator, 0
    def ask(self, **message): return self.annotator.receive(dict(message, panel='p'))
    def setup(self): return self.ask(type='ready')[0][0]
    def item(self, place): return self.ask(type='want', places=[place])[0]
    def do(self, buffers=(), **message):
        self.seq += 1
        replies = self.annotator.receive(dict(message, seq=self.seq, panel='p'), list(buffers))
        return replies[-1][0]
    def say(self, place, kind, value=None, **more): return self.do(type='say', place=place, kind=kind, value=value, seconds=.5, **more)


@pytest.fixture
def pictures(tmp_path):
    for i in range(6): Image.fromarray(np.full((8, 12), 40 * i, np.uint8)).save(tmp_path/f'{i}.png')
    return Pool.from_folder(tmp_path)


NAMES = [f'{i}.png' for i in range(6)]


def test_everything_a_page_is_told_is_json(pictures):
    page = Page(Annotator(pictures, NAMES, classes=[0, 1, PAYLOAD], guesses={'1.png': np.int64(1)}, by=PAYLOAD))
    told = [page.setup(), page.item(0)[0], page.item(1)[0], page.say(0, 'label', 2), page.say(0, 'label', 9), page.do(type='undo')]
    assert json.loads(json.dumps(told))[0]['classes'] == ['0', '1', PAYLOAD]
    assert page.item(1)[0]['guess'] == 1


def test_whole_numbers_come_back_as_they_are(pictures):
    page = Page(Annotator(pictures, NAMES, classes=list(range(10))))
    page.say(0, 'label', 7)
    assert pictures.labelled['label'].tolist() == [7]


@pytest.mark.parametrize('garbage', [dict(type='say'), dict(type='say', place=0), dict(type='say', place=99, kind='label', value=0), dict(type='say', place='0', kind='label', value=0), dict(type='say', place=-1, kind='skip'),
                                     dict(type='say', place=0, kind='label', value=None), dict(type='say', place=0, kind='add', value=0), dict(type='say', place=0, kind='retract'), dict(type='say', place=0, kind='label', value=[0]), dict(type='nonsense'), dict(type='next', place=None)])
def test_garbage_from_a_page_writes_nothing(pictures, garbage):
    page = Page(Annotator(pictures, NAMES, classes=['a', 'b']))
    events = len(pictures.history)
    replies = page.annotator.receive(dict(garbage, seq=1, panel='p'))
    assert not replies or 'Not saved' in replies[-1][0]['error']
    assert len(pictures.history) == events
    assert page.annotator.receive(dict(type='want', places=['x', -1, 99, 2], panel='p'))[0][0]['place'] == 2


def test_a_ledger_that_is_locked_is_told_and_the_answer_can_be_given_again(tmp_path):
    pool, other = Pool(['a', 'b'], db=tmp_path/'l.db', timeout=.05), Ledger(tmp_path/'l.db')
    page = Page(Annotator(pool, ['a', 'b'], classes=['x', 'y']))
    other.db.execute('BEGIN IMMEDIATE')
    assert 'Not saved' in page.say(0, 'label', 1)['error']
    other.db.execute('ROLLBACK')
    assert page.say(0, 'label', 1)['to'] == 1
    assert pool.labelled['label'].tolist() == ['y']


def test_a_message_that_comes_twice_counts_once_and_pages_count_for_themselves(pictures):
    annotator = Annotator(pictures, NAMES, classes=['a', 'b'])
    say = dict(type='say', place=0, kind='label', value=0)
    assert annotator.receive(dict(say, seq=1, panel='p'))
    assert annotator.receive(dict(say, seq=1, panel='p')) == []
    assert annotator.receive(dict(say, seq=1, panel='q', value=1))
    assert (pictures.history.kind == 'label').sum() == 2


def test_no_guess_is_shown_for_the_hold_out_unless_asked_for(pictures):
    held = pictures.hold_out(2)
    free = next(u for u in NAMES if u not in held)
    guesses = dict.fromkeys(NAMES, 'a')
    items = lambda **kwargs: [Page(Annotator(pictures, [held[0], free], classes=['a', 'b'], guesses=guesses, **kwargs)).item(i)[0] for i in (0, 1)]
    assert ['guess' in item for item in items()] == [False, True]
    assert ['guess' in item for item in items(show_guess=True)] == [True, True]
    assert ['guess' in item for item in items(show_guess=False)] == [False, False]
    page = Page(Annotator(pictures, [held[0]], classes=['a', 'b'], guesses=guesses))
    page.say(0, 'label', 1)
    assert pictures.history.iloc[-1].note == {'guess': 'a', 'shown': False}


def test_a_query_brings_guesses_and_scores(pictures):
    query = Query([], ['3.png', '1.png'], [3, 1], np.array([.9, .1]), ['b', 'no such class'], dict(acquisition='bald', pool=6))
    first, second = (Page(Annotator(pictures, query, classes=['a', 'b'])).item(i)[0] for i in (0, 1))
    assert (first['guess'], first['score']) == (1, '0.9') and 'guess' not in second


def test_suspects_are_looked_at_again(pictures):
    pictures.label(NAMES, ['a'] * 6, by='anna')
    suspects = pd.DataFrame(dict(label='a', suggested=['b', 'a'], quality=[.1, .2]), index=['2.png', '4.png'])
    page = Page(Annotator(pictures, suspects, by='anna', classes=['a', 'b']))
    assert page.setup()['review'] and page.setup()['place'] == 0
    item = page.item(0)[0]
    assert (item['standing'], item['guess'], item['said']) == (0, 1, None)
    page.say(0, 'label', 1)
    assert pictures.labelled.loc['2.png', 'label'] == 'b'
    page.say(1, 'label', 0)
    assert page.annotator.session.following() is None
    assert pictures.history.iloc[-1].note['review'] is True


def test_items_that_can_not_be_shown_can_still_be_skipped(tmp_path):
    (tmp_path/'0.png').write_text('no picture')
    page = Page(Annotator(Pool.from_folder(tmp_path), ['0.png'], classes=['a', 'b']))
    assert 'can not be shown' in page.item(0)[0]['error']
    assert page.say(0, 'ignore')['to'] is None


def test_no_file_outside_the_root_is_served(tmp_path):
    root = tmp_path/'root'
    root.mkdir()
    Image.new('L', (8, 8)).save(tmp_path/'secret.png')
    (root/'link.png').symlink_to(tmp_path/'secret.png')
    pool = Pool(['../secret.png', str(tmp_path/'secret.png'), 'link.png'], uids=['a', 'b', 'c'], root=root)
    page = Page(Annotator(pool, ['a', 'b', 'c'], kind='mask', classes=['x', 'y']))
    for place in range(3):
        told, buffers = page.item(place)
        assert 'does not lie under the root' in told['error'] and buffers == []
        assert 'Not saved' in page.say(place, 'file', '../secret.png')['error']
    assert read_mask('../secret.png', root, root/'.masks') is None
    assert len(pool.labelled) == 0


@pytest.mark.filterwarnings("ignore")
def test_masks_are_files_below_the_root_and_train(pictures):
    page = Page(Annotator(pictures, NAMES, kind='mask', classes=['ground', 'cell']))
    painted = np.zeros((8, 12), np.uint8)
    painted[2:4] = 1
    for i in range(6): page.say(i, 'label', size=[12, 8], buffers=[painted.tobytes()])
    label = pictures.labelled['label'].iloc[0]
    assert np.array_equal(np.asarray(Image.open(pictures.root/label)), painted)
    assert len(Pool.from_folder(pictures.root)) == 6            # no mask is taken for a picture
    dls = pictures.dataloaders(DataBlock((ImageBlock(PILImageBW), MaskBlock(codes=['ground', 'cell']))), bs=3, num_workers=0)
    assert dls.train_ds[0][1].size == (12, 8) and np.array_equal(np.asarray(dls.train_ds[0][1]), painted)
    told, buffers = page.item(0)
    assert np.array_equal(np.frombuffer(buffers[told['mask']], np.uint8).reshape(8, 12), painted)
    for bad in (dict(size=[12, 9], buffers=[painted.tobytes()]), dict(size=[12, 8], buffers=[(painted + 1).tobytes()])): assert 'Not saved' in page.say(0, 'label', **bad)['error']
    page.say(1, 'file', label)
    assert pictures.labelled.loc['1.png', 'label'] == label
    page.do(type='undo')
    assert pictures.labelled.loc['1.png', 'label'] != label     # the first version is another file, and still there
    assert (pictures.root/pictures.labelled.loc['1.png', 'label']).is_file()


def test_a_mask_that_the_model_guesses_can_be_taken(pictures):
    guess = np.ones((4, 6), np.uint8)
    page = Page(Annotator(pictures, NAMES, kind='mask', classes=['ground', 'cell'], guesses=lambda uid: guess))
    assert page.item(0)[0]['guess'] is True
    page.say(0, 'accept')
    assert read_mask(pictures.labelled['label'].iloc[0], pictures.root, pictures.root/'.masks').tolist() == fitted(guess, (12, 8)).tolist()


def test_boxes_are_in_pixels_of_the_picture_itself(tmp_path):
    Image.new('RGB', (4000, 1000)).save(tmp_path/'0.png')
    page = Page(Annotator(Pool.from_folder(tmp_path), ['0.png'], kind='boxes', classes=['cell']))
    told, (image,) = page.item(0)
    assert told['view']['size'] == (4000, 1000)
    page.say(0, 'label', {'boxes': [[3500, 10, 4100, 900]], 'labels': [0]})
    assert page.annotator.pool.labelled['label'].iloc[0] == {'boxes': [[3500, 10, 4000, 900]], 'labels': ['cell']}


def test_words_for_what_is_not_there(pictures, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='masks=folder'): Annotator(Pool(['a']), ['a'], kind='mask', classes=['x', 'y'])
    with pytest.raises(ValueError, match='empty'): Annotator(pictures, [], classes=['a', 'b'])
    with pytest.raises(KeyError, match='knows no'): Annotator(pictures, ['9.png'], classes=['a', 'b'])
    monkeypatch.setitem(sys.modules, 'anywidget', None)
    module._widget_class.cache_clear()
    with pytest.raises(ImportError, match=r'fastai_al\[widgets\]'): Annotator(pictures, NAMES, classes=['a', 'b']).widget
    module._widget_class.cache_clear()


@pytest.mark.filterwarnings("ignore")
def test_what_is_annotated_is_trained_on_from_the_next_fit_on(pictures):
    pictures.label(NAMES[:3], ['a', 'b', 'a'])
    dls = pictures.dataloaders(DataBlock((ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b']))), bs=2, num_workers=0)
    learn = ActiveLearner(Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(96, 2)), metrics=accuracy), pictures)
    page = Page(learn.annotate(NAMES[3:], by='anna'))
    assert page.setup()['classes'] == ['a', 'b']
    page.say(0, 'label', 1)
    assert len(learn.dls.train_ds) == 3
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert len(learn.dls.train_ds) == 4
    learn.annotate(NAMES[4:])
    assert sum(isinstance(cb, GrowBeforeFit) for cb in learn.cbs) == 1


def test_a_mask_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, 'replace', lambda *a: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError): write_mask(np.zeros((2, 2)), '../../x.png', tmp_path, tmp_path/'.masks')
    assert not list(tmp_path.rglob('*.png'))


def test_one_bad_item_holds_up_no_other(pictures):
    guesses = {'0.png': 'a', '2.png': 'b'}
    page = Page(Annotator(pictures, NAMES[:3], classes=['a', 'b'], guesses=lambda uid: guesses[uid]))
    told = [said for said, _ in page.ask(type='want', places=[0, 1, 2])]
    assert ['error' in said for said in told] == [False, True, False] and "KeyError: '1.png'" in told[1]['error']


def test_the_score_of_a_suspect_that_is_held_out_does_not_tell_the_guess(pictures):
    held, = pictures.hold_out(1)
    pictures.label(held, 'a')
    page = Page(Annotator(pictures, pd.DataFrame(dict(suggested=['b'], quality=[.03]), index=[held]), by='ben', classes=['a', 'b']))
    assert not {'score', 'guess', 'guessWords'} & page.item(0)[0].keys()


@pytest.mark.parametrize('guess, painted', [(np.ones((8, 12), np.int64), True), (np.full((8, 12), 2), False), (np.full((8, 12), -1), False)])
def test_a_guessed_mask_is_sent_in_bytes_or_not_at_all(pictures, guess, painted):
    page = Page(Annotator(pictures, NAMES, kind='mask', classes=['ground', 'cell'], guesses=lambda uid: guess))
    told, buffers = page.item(0)
    assert ('mask' in told) == painted == ('guess' in told)
    if painted: assert bytes(buffers[told['mask']]) == b'\1' * 96
    if not painted: assert 'Not saved' in page.say(0, 'accept')['error']
