"The kernel's side of the annotator, without a browser"

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import (
    BBoxBlock,
    BBoxLblBlock,
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    ImageBlock,
    Learner,
    MaskBlock,
    PILImageBW,
    Resize,
    ResizeMethod,
    accuracy,
    nn,
)
from PIL import Image
from torchvision.ops import box_iou

from conftest import assert_same, everything
from detectors import Squares, box_of, small_fcos, trained_weights
from fastai_al import FastaiALWarning
from fastai_al.acquire.query import Query
from fastai_al.active_learner import ActiveLearner
from fastai_al.annotate import annotator as module
from fastai_al.annotate.annotator import Annotator
from fastai_al.annotate.guesses import predict_drawings
from fastai_al.annotate.inputs import MAX_KEPT, describe_label
from fastai_al.annotate.labelstudio.exchange import to_label_studio
from fastai_al.annotate.question import Question
from fastai_al.loop.rounds import RoundsCallback
from fastai_al.pool.ledger import Ledger
from fastai_al.pool.masks import mask_label, read_mask, resize_mask, write_mask
from fastai_al.pool.pool import Pool
from fastai_al.posterior.dropout import MCDropout
from fastai_al.tasks.detection import detection_learner

pytestmark = pytest.mark.filterwarnings('ignore:Answers are kept in memory')  # as these pools are

PAYLOAD = '<script>alert(1)</script>'


class Page:
    "What a page sends, and what it receives"

    def __init__(self, annotator):
        self.annotator, self.seq = annotator, 0

    def ask(self, **message):
        return self.annotator.receive(dict(message, panel='p'))

    def setup(self):
        return self.ask(type='ready')[0][0]

    def item(self, place):
        return self.ask(type='want', places=[place])[0]

    def do(self, buffers=(), **message):
        self.seq += 1
        replies = self.annotator.receive(dict(message, seq=self.seq, panel='p'), list(buffers))
        return replies[-1][0]

    def say(self, place, kind, value=None, **more):
        return self.do(type='say', place=place, kind=kind, value=value, seconds=0.5, **more)


@pytest.fixture
def pictures(tmp_path):
    for i in range(6):
        Image.fromarray(np.full((8, 12), 40 * i, np.uint8)).save(tmp_path / f'{i}.png')
    return Pool.from_folder(tmp_path)


NAMES = [f'{i}.png' for i in range(6)]


def test_every_message_to_a_page_is_json(pictures):
    page = Page(
        Annotator(
            pictures,
            NAMES,
            classes=[0, 1, PAYLOAD],
            guesses={'1.png': np.int64(1)},
            annotator=PAYLOAD,
        )
    )
    told = [
        page.setup(),
        page.item(0)[0],
        page.item(1)[0],
        page.say(0, 'label', 2),
        page.say(0, 'label', 9),
        page.do(type='undo'),
    ]
    assert json.loads(json.dumps(told))[0]['classes'] == ['0', '1', PAYLOAD]
    assert page.item(1)[0]['guess'] == 1


def test_whole_numbers_come_back_as_they_are(pictures):
    page = Page(Annotator(pictures, NAMES, classes=list(range(10))))
    page.say(0, 'label', 7)
    assert pictures.labelled['label'].tolist() == [7]


@pytest.mark.parametrize(
    'garbage',
    [
        dict(type='say'),
        dict(type='say', place=0),
        dict(type='say', place=99, kind='label', value=0),
        dict(type='say', place='0', kind='label', value=0),
        dict(type='say', place=-1, kind='skip'),
        dict(type='say', place=0, kind='label', value=None),
        dict(type='say', place=0, kind='add', value=0),
        dict(type='say', place=0, kind='retract'),
        dict(type='say', place=0, kind='label', value=[0]),
        dict(type='nonsense'),
        dict(type='next', place=None),
    ],
)
def test_garbage_from_a_page_writes_nothing(pictures, garbage):
    page = Page(Annotator(pictures, NAMES, classes=['a', 'b']))
    events = len(pictures.history)
    replies = page.annotator.receive(dict(garbage, seq=1, panel='p'))
    assert not replies or 'Not saved' in replies[-1][0]['error']
    assert len(pictures.history) == events
    assert (
        page.annotator.receive(dict(type='want', places=['x', -1, 99, 2], panel='p'))[0][0]['place']
        == 2
    )


def test_a_locked_ledger_is_reported_and_the_answer_can_be_repeated(tmp_path):
    pool, other = Pool(['a', 'b'], db=tmp_path / 'l.db', timeout=0.05), Ledger(tmp_path / 'l.db')
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


def test_no_guess_is_shown_for_the_holdout_unless_requested(pictures):
    held = pictures.draw_holdout(2)
    free = next(u for u in NAMES if u not in held)
    guesses = dict.fromkeys(NAMES, 'a')
    items = lambda **kwargs: [
        Page(
            Annotator(pictures, [held[0], free], classes=['a', 'b'], guesses=guesses, **kwargs)
        ).item(i)[0]
        for i in (0, 1)
    ]
    assert ['guess' in item for item in items()] == [False, True]
    assert ['guess' in item for item in items(show_guess=True)] == [True, True]
    assert ['guess' in item for item in items(show_guess=False)] == [False, False]
    page = Page(Annotator(pictures, [held[0]], classes=['a', 'b'], guesses=guesses))
    page.say(0, 'label', 1)
    assert pictures.history.iloc[-1].note == {'guess': 'a', 'shown': False}


def test_a_query_brings_guesses_and_their_probabilities(pictures):
    draws = torch.tensor([[[0.8, 0.2], [0.4, 0.6]], [[0.1, 0.9], [0.3, 0.7]]]).log()
    query = Query(
        [],
        ['3.png', '1.png'],
        [3, 1],
        np.array([0.9, 0.1]),
        ['b', 'no such class'],
        dict(acquisition='bald', pool=6, task='classes'),
        draws=draws,
    )
    first, second = (
        Page(Annotator(pictures, query, classes=['a', 'b'])).item(i)[0] for i in (0, 1)
    )
    assert (first['guess'], first['guessWords']) == (1, 'b (60%)') and 'guess' not in second
    assert not {'score', 'guessWords'} & second.keys()
    query.info['task'] = 'labels'  # whose draws are of each label
    assert Page(Annotator(pictures, query, classes=['a', 'b'])).item(0)[0]['guessWords'] == 'b'


def test_suspects_are_looked_at_again(pictures):
    pictures.label(NAMES, ['a'] * 6, annotator='anna')
    suspects = pd.DataFrame(
        dict(label='a', suggested=['b', 'a'], quality=[0.1, 0.2]), index=['2.png', '4.png']
    )
    page = Page(Annotator(pictures, suspects, annotator='anna', classes=['a', 'b']))
    assert page.setup()['review'] and page.setup()['place'] == 0
    item = page.item(0)[0]
    assert (item['standing'], item['guess'], item['said']) == (0, 1, None)
    page.say(0, 'label', 1)
    assert pictures.labelled.loc['2.png', 'label'] == 'b'
    page.say(1, 'label', 0)
    assert page.annotator.session.next_open() is None
    assert pictures.history.iloc[-1].note['review'] is True


def test_items_that_can_not_be_shown_can_still_be_skipped(tmp_path):
    (tmp_path / '0.png').write_text('no picture')
    page = Page(Annotator(Pool.from_folder(tmp_path), ['0.png'], classes=['a', 'b']))
    assert 'cannot be shown' in page.item(0)[0]['error']
    assert page.say(0, 'ignore')['to'] is None


def test_no_file_outside_the_root_is_served(tmp_path):
    root = tmp_path / 'root'
    root.mkdir()
    Image.new('L', (8, 8)).save(tmp_path / 'secret.png')
    (root / 'link.png').symlink_to(tmp_path / 'secret.png')
    pool = Pool(
        ['../secret.png', str(tmp_path / 'secret.png'), 'link.png'], uids=['a', 'b', 'c'], root=root
    )
    page = Page(Annotator(pool, ['a', 'b', 'c'], kind='mask', classes=['x', 'y']))
    for place in range(3):
        told, buffers = page.item(place)
        assert 'does not lie under the root' in told['error'] and buffers == []
        assert 'Not saved' in page.say(place, 'file', '../secret.png')['error']
    assert read_mask('../secret.png', root, root / '.masks') is None
    assert len(pool.labelled) == 0


@pytest.mark.filterwarnings('ignore')
def test_masks_are_files_below_the_root_and_train(pictures):
    page = Page(Annotator(pictures, NAMES, kind='mask', classes=['ground', 'cell']))
    painted = np.zeros((8, 12), np.uint8)
    painted[2:4] = 1
    for i in range(6):
        page.say(i, 'label', size=[12, 8], buffers=[painted.tobytes()])
    label = pictures.labelled['label'].iloc[0]
    assert np.array_equal(np.asarray(Image.open(pictures.root / label)), painted)
    assert len(Pool.from_folder(pictures.root)) == 6  # no mask is taken for a picture
    dls = pictures.dataloaders(
        DataBlock((ImageBlock(PILImageBW), MaskBlock(codes=['ground', 'cell']))),
        bs=3,
        num_workers=0,
    )
    assert dls.train_ds[0][1].size == (12, 8) and np.array_equal(
        np.asarray(dls.train_ds[0][1]), painted
    )
    told, buffers = page.item(0)
    assert np.array_equal(np.frombuffer(buffers[told['mask']], np.uint8).reshape(8, 12), painted)
    for bad in (
        dict(size=[12, 9], buffers=[painted.tobytes()]),
        dict(size=[12, 8], buffers=[(painted + 1).tobytes()]),
    ):
        assert 'Not saved' in page.say(0, 'label', **bad)['error']
    page.say(1, 'file', label)
    assert pictures.labelled.loc['1.png', 'label'] == label
    page.do(type='undo')
    assert (
        pictures.labelled.loc['1.png', 'label'] != label
    )  # the first version is another file, and still there
    assert (pictures.root / pictures.labelled.loc['1.png', 'label']).is_file()


def test_a_mask_that_the_model_guesses_can_be_taken(pictures):
    guess = np.ones((4, 6), np.uint8)
    page = Page(
        Annotator(
            pictures, NAMES, kind='mask', classes=['ground', 'cell'], guesses=lambda uid: guess
        )
    )
    assert page.item(0)[0]['guess'] is True
    page.say(0, 'accept')
    assert (
        read_mask(
            pictures.labelled['label'].iloc[0], pictures.root, pictures.root / '.masks'
        ).tolist()
        == resize_mask(guess, (12, 8)).tolist()
    )


def test_boxes_are_in_pixels_of_the_picture_itself(tmp_path):
    Image.new('RGB', (4000, 1000)).save(tmp_path / '0.png')
    page = Page(Annotator(Pool.from_folder(tmp_path), ['0.png'], kind='boxes', classes=['cell']))
    told, (image,) = page.item(0)
    assert told['view']['size'] == (4000, 1000)
    page.say(0, 'label', {'boxes': [[3500, 10, 4100, 900]], 'labels': [0]})
    assert page.annotator.pool.labelled['label'].iloc[0] == {
        'boxes': [[3500, 10, 4000, 900]],
        'labels': ['cell'],
    }


def test_a_guess_that_is_not_shown_can_not_be_accepted(pictures):
    (held,) = pictures.draw_holdout(1)
    page = Page(
        Annotator(
            pictures,
            [held],
            kind='mask',
            classes=['ground', 'cell'],
            guesses=lambda uid: np.ones((8, 12), np.uint8),
        )
    )
    assert (
        'mask' not in page.item(0)[0]
        and 'No guess is shown' in page.say(0, 'accept')['error']
        and len(pictures.holdout['label'].dropna()) == 0
    )


def test_the_guess_that_is_accepted_is_the_one_that_was_shown(pictures):
    said = []

    def model(uid):  # it is trained meanwhile
        said.append(uid)
        return np.full((8, 12), len(said) % 2, np.uint8)

    page = Page(Annotator(pictures, NAMES, kind='mask', classes=['ground', 'cell'], guesses=model))
    told, buffers = page.item(0)
    shown = np.frombuffer(buffers[told['mask']], np.uint8).reshape(8, 12)
    page.say(0, 'accept')
    np.testing.assert_array_equal(
        read_mask(pictures.labelled['label'].iloc[0], pictures.root, pictures.root / '.masks'),
        shown,
    )
    for _ in range(3):
        page.item(0)
    assert said == ['0.png']
    page.annotator.guesses.shown.update((f'{i}', None) for i in range(1000))
    assert page.item(1)[0]['guess'] is True and len(page.annotator.guesses.shown) == MAX_KEPT


def test_a_guess_that_ones_own_mask_covers_is_recorded_too(pictures):
    page = Page(
        Annotator(
            pictures,
            NAMES,
            kind='mask',
            classes=['ground', 'cell'],
            guesses=lambda uid: np.ones((8, 12), np.uint8),
        )
    )
    assert 'guessMask' not in page.item(0)[0]
    page.say(0, 'label', size=[12, 8], buffers=[b'\0' * 96])
    told, buffers = page.item(0)
    assert (
        bytes(buffers[told['mask']]) == b'\0' * 96
        and bytes(buffers[told['guessMask']]) == b'\1' * 96
    )


LABELS_OF = {
    'class': 'a',
    'labels': ['a'],
    'value': 1.5,
    'boxes': {'boxes': [[0, 0, 1, 1]], 'labels': ['a']},
}


@pytest.mark.parametrize('kind', ['class', 'labels', 'value', 'boxes', 'mask', 'text'])
@pytest.mark.parametrize('so_far', LABELS_OF)
def test_a_kind_that_the_pool_does_not_take_is_refused_before_the_work(pictures, kind, so_far):
    pictures.label(['0.png'], [LABELS_OF[so_far]])
    fits = (
        kind == so_far or so_far == 'class' and kind in ('mask', 'text')
    )  # a text and the name of a mask are strings too
    ask = lambda: Annotator(pictures, NAMES, kind=kind, classes=['a', 'b'])
    if fits:
        assert ask().question.kind == kind
    else:
        with pytest.raises(
            ValueError, match=f"kind='{kind}' asks for .* but the labels of this pool are "
        ):
            ask()
        with pytest.raises(ValueError, match=f"kind='{kind}' asks for "):
            to_label_studio(
                pictures,
                Query(NAMES[:1], NAMES[:1], [0], np.ones(1), [None], {}),
                pictures.root / 'q.json',
                kind,
                ['a', 'b'],
            )
        assert not (pictures.root / 'q.json').exists()


def test_classes_that_the_pool_does_not_take_are_refused_before_the_work(pictures):
    pictures.label(['0.png'], [3])
    with pytest.raises(
        ValueError,
        match='an answer would be a string, but the labels of this pool are a number each, such '
        'as 3',
    ):
        Annotator(pictures, NAMES, classes=[3, '4'])
    pictures.set_vocab([3, 4])
    with pytest.raises(
        ValueError, match=r'The class 5 is not in the vocabulary of the pool, \[3, 4\]'
    ):
        Annotator(pictures, NAMES, classes=[3, 5])
    for kind in ('value', 'text', 'mask'):
        with pytest.raises(
            ValueError, match=f"kind='{kind}' asks for .* labels of this pool are classes"
        ):
            Annotator(pictures, NAMES, kind=kind, classes=['a', 'b'])


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('relative', [False, True])
def test_pictures_of_more_than_8_bits_that_are_read_as_white_are_found(tmp_path, relative):
    pixels = np.arange(96).reshape(8, 12)
    for i, (times, kind) in enumerate(
        ((1, np.uint8), (40, np.uint16), (40, np.int32), (1, np.uint16), (40, np.float32))
    ):
        Image.fromarray((pixels * times).astype(kind)).save(tmp_path / f'{i}.tif')
    names = [f'{i}.tif' for i in range(5)]
    pool = (
        Pool.from_df(
            pd.DataFrame(dict(image=names, label=['a', 'b', 'a', 'b', None])),
            'image',
            'label',
            root=tmp_path,
        )
        if relative
        else Pool.from_folder(tmp_path)
    )
    if not relative:
        pool.label(names[:4], ['a', 'b', 'a', 'b'])
    dls = pool.dataloaders(
        DataBlock((ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b']))), bs=2, num_workers=0
    )
    found = pool.unreadable(dls)
    assert (
        list(found.index) == ['1.tif', '2.tif', '4.tif']
        and 'more than 8 bits (mode I;16), and 93% of its pixels are read as white'
        in found['1.tif']
    )

    class Deep(PILImageBW):
        @classmethod
        def create(cls, fn, **kwargs):
            return cls(
                Image.fromarray((np.asarray(Image.open(fn)) / 20).clip(0, 255).astype(np.uint8))
            )

    assert not len(
        pool.unreadable(
            pool.dataloaders(
                DataBlock((ImageBlock(Deep), CategoryBlock(vocab=['a', 'b']))), bs=2, num_workers=0
            )
        )
    )


def test_words_for_what_is_not_there(pictures, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='masks=folder'):
        Annotator(Pool(['a']), ['a'], kind='mask', classes=['x', 'y'])
    with pytest.raises(ValueError, match='empty'):
        Annotator(pictures, [], classes=['a', 'b'])
    with pytest.raises(KeyError, match='knows no'):
        Annotator(pictures, ['9.png'], classes=['a', 'b'])
    monkeypatch.setitem(sys.modules, 'anywidget', None)
    module._widget_class.cache_clear()
    with pytest.raises(ImportError, match=r'fastai_al\[widgets\]'):
        _ = Annotator(pictures, NAMES, classes=['a', 'b']).widget
    module._widget_class.cache_clear()


@pytest.mark.filterwarnings('ignore')
def test_what_is_annotated_is_trained_on_from_the_next_fit_on(pictures):
    pictures.label(NAMES[:3], ['a', 'b', 'a'])
    dls = pictures.dataloaders(
        DataBlock((ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b']))), bs=2, num_workers=0
    )
    learn = ActiveLearner(
        Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(96, 2)), metrics=accuracy), pictures
    )
    page = Page(learn.annotate(NAMES[3:], annotator='anna'))
    assert page.setup()['classes'] == ['a', 'b']
    page.say(0, 'label', 1)
    assert len(learn.dls.train_ds) == 3
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert len(learn.dls.train_ds) == 4
    learn.annotate(NAMES[4:])
    assert sum(isinstance(cb, RoundsCallback) for cb in learn.cbs) == 1


def test_one_bad_item_holds_up_no_other(pictures):
    guesses = {'0.png': 'a', '2.png': 'b'}
    page = Page(
        Annotator(pictures, NAMES[:3], classes=['a', 'b'], guesses=lambda uid: guesses[uid])
    )
    told = [said for said, _ in page.ask(type='want', places=[0, 1, 2])]
    assert ['error' in said for said in told] == [
        False,
        True,
        False,
    ] and "KeyError: '1.png'" in told[1]['error']


def test_the_score_of_a_suspect_in_the_holdout_does_not_reveal_the_guess(pictures):
    (held,) = pictures.draw_holdout(1)
    pictures.label(held, 'a')
    page = Page(
        Annotator(
            pictures,
            pd.DataFrame(dict(suggested=['b'], quality=[0.03]), index=[held]),
            annotator='ben',
            classes=['a', 'b'],
        )
    )
    item = page.item(0)[0]
    assert not {'guess', 'guessWords'} & item.keys() and '3%' not in json.dumps(item)


@pytest.mark.parametrize(
    'guess, painted',
    [
        (np.ones((8, 12), np.int64), True),
        (np.full((8, 12), 2), False),
        (np.full((8, 12), -1), False),
    ],
)
def test_a_guessed_mask_is_sent_in_bytes_or_not_at_all(pictures, guess, painted):
    page = Page(
        Annotator(
            pictures, NAMES, kind='mask', classes=['ground', 'cell'], guesses=lambda uid: guess
        )
    )
    told, buffers = page.item(0)
    assert ('mask' in told) == painted == ('guess' in told)
    if painted:
        assert bytes(buffers[told['mask']]) == b'\1' * 96
    if not painted:
        assert 'Not saved' in page.say(0, 'accept')['error']


REVIEWED = {
    'labels': (['a', 'old', 'b'], [0, 2, 1], ['a', 'old'], [2, 0]),
    'boxes': (
        {'boxes': [[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 5.0, 5.0]], 'labels': ['old', 'a']},
        {'boxes': [[0, 0, 4, 4], [1, 1, 5, 5]], 'labels': [2, 0]},
        {'boxes': [[0.0, 0.0, 4.0, 4.0]], 'labels': ['old']},
        {'boxes': [[0, 0, 4, 4]], 'labels': [2]},
    ),
    'class': ('old', 2, 'old', 2),
}


@pytest.mark.parametrize('kind', REVIEWED)
def test_a_class_outside_the_question_stays_unless_it_is_removed(pictures, kind):
    standing, places, less, said = REVIEWED[kind]
    pictures.label(['0.png'], [standing], annotator='anna')
    page = Page(
        Annotator(
            pictures,
            ['0.png', '1.png'],
            annotator='ben',
            kind=kind,
            classes=['a', 'b'],
            review=True,
        )
    )
    item = page.item(0)[0]
    assert (item['standing'], item['extra']) == (places, ['old'])
    assert page.item(1)[0]['extra'] == []
    assert 'error' not in page.say(0, 'label', item['standing'])  # confirmed as it is
    same = lambda a, b: sorted(a) == sorted(b) if kind == 'labels' else a == b
    assert same(pictures.history.iloc[-1].label, standing) and page.item(0)[0]['said']['value'] == (
        sorted(places) if kind == 'labels' else places
    )
    page.say(0, 'label', said)
    assert same(pictures.history.iloc[-1].label, less)
    without = {'labels': [1], 'boxes': {'boxes': [[1, 1, 5, 5]], 'labels': [0]}, 'class': 1}[kind]
    page.say(0, 'label', without)
    assert 'old' not in json.dumps(pictures.history.iloc[-1].label) and page.item(0)[0][
        'extra'
    ] == ['old']  # its place stays while the page may name it
    beyond = {'labels': [3], 'boxes': {'boxes': [[1, 1, 5, 5]], 'labels': [3]}, 'class': 3}[kind]
    assert 'Not saved. 3 is not the number of a class' in page.say(0, 'label', beyond)['error']
    assert 'Not saved' in page.say(1, 'label', said)['error']  # of the one item alone


def test_ones_own_answer_to_another_list_of_classes_is_not_cut_short(pictures):
    pictures.label(['0.png'], [['a', 'old']], annotator='anna')
    item = Page(
        Annotator(pictures, NAMES, annotator='anna', kind='labels', classes=['a', 'b'])
    ).item(0)[0]
    assert (item['said']['value'], item['extra']) == ([0, 2], ['old'])


# what the model would draw


def bright() -> nn.Module:
    "Two classes for each pixel: dark and bright"
    model = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        model.weight[:], model.bias[:] = (
            torch.tensor([-1.0, 1.0])[:, None, None, None],
            torch.tensor([0.5, -0.5]),
        )
    return nn.Sequential(model, nn.Dropout2d(0))


def painter(pool, method=ResizeMethod.Squish, size=(4, 6), **kwargs):
    block = DataBlock(
        (ImageBlock(PILImageBW), MaskBlock(codes=['ground', 'cell'])),
        item_tfms=Resize(size, method),
    )
    return ActiveLearner(
        Learner(
            pool.dataloaders(block, bs=2, num_workers=0),
            bright(),
            CrossEntropyLossFlat(axis=1),
            **kwargs,
        ),
        pool,
    )


def query_of(pool, uids):
    return Query(
        [],
        list(uids),
        list(range(len(uids))),
        np.linspace(1, 0.1, len(uids)),
        [None] * len(uids),
        dict(acquisition='bald', pool=6),
    )


@pytest.fixture
def half_bright(tmp_path):
    "Pictures 24 x 16 whose left part is bright: of number i, 4 (i + 1) columns"
    (tmp_path / 'said').mkdir()
    for i in range(6):
        pixels = np.zeros((16, 24), np.uint8)
        pixels[:, : 4 * (i + 1)] = 255
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
    pool = Pool.from_folder(tmp_path)
    held = pool.draw_holdout(1)
    for uid in [*held, *[u for u in NAMES if u not in held][:2]]:
        pool.label(
            uid,
            mask_label(
                write_mask((np.asarray(Image.open(tmp_path / uid)) > 0), uid, tmp_path / '.masks'),
                tmp_path,
            ),
        )
    return pool


@pytest.mark.filterwarnings('ignore')
def test_the_model_paints_first_in_the_pictures_own_size_and_not_for_the_holdout(half_bright):
    learn = painter(half_bright, cbs=MCDropout(k=3))
    held = half_bright.holdout.index[0]
    free = [u for u in NAMES if u not in half_bright.labelled.index and u != held]
    with learn.no_bar():
        before = everything(learn.learn)
        page = Page(learn.annotate(query_of(half_bright, [*free, held]), annotator='anna'))
        assert_same(everything(learn.learn), before)
    for place, uid in enumerate(free):
        told, buffers = page.item(place)
        mask = np.frombuffer(buffers[told['mask']], np.uint8).reshape(16, 24)
        assert told['guess'] is True and np.array_equal(
            mask, np.asarray(Image.open(half_bright.root / uid)) > 0
        )
    assert not {'guess', 'mask'} & page.item(len(free))[0].keys()
    page.say(0, 'accept')
    assert np.array_equal(
        read_mask(half_bright.labelled.loc[free[0], 'label'], half_bright.root, half_bright.root),
        np.asarray(Image.open(half_bright.root / free[0])) > 0,
    )
    assert half_bright.history.iloc[-1].note == dict(guess='a mask', shown=True)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'how, why',
    [
        (dict(method=ResizeMethod.Crop, size=8), 'was cropped or padded'),
        (dict(method=ResizeMethod.Pad, size=8), 'was cropped or padded'),
    ],
)
def test_no_mask_is_guessed_where_it_would_not_lie_on_the_picture(half_bright, how, why):
    learn = painter(half_bright, **how)
    free = [
        u
        for u in NAMES
        if u not in half_bright.labelled.index and u not in half_bright.holdout.index
    ]
    with learn.no_bar(), pytest.warns(FastaiALWarning, match=f'No guess is shown.*{why}'):
        page = Page(learn.annotate(query_of(half_bright, free)))
    assert not {'guess', 'mask', 'error'} & page.item(0)[0].keys()


@pytest.mark.filterwarnings('ignore')
def test_other_guesses_and_other_classes(half_bright, recwarn):
    learn, free = (
        painter(half_bright),
        [
            u
            for u in NAMES
            if u not in half_bright.labelled.index and u not in half_bright.holdout.index
        ],
    )
    with learn.no_bar():
        own = Page(
            learn.annotate(
                query_of(half_bright, free), guesses={free[0]: np.ones((2, 2), np.uint8)}
            )
        )
        assert bytes(own.item(0)[1][1]) == b'\1' * 384 and 'guess' not in own.item(1)[0]
        for page in (
            Page(learn.annotate(query_of(half_bright, free), show_guess=False)),
            Page(learn.annotate(free)),
        ):
            assert 'guess' not in page.item(0)[0]
        with pytest.warns(FastaiALWarning, match='knows 2 classes of pixels, and 3'):
            learn.annotate(query_of(half_bright, free), classes=['ground', 'cell', 'edge'])
        with pytest.raises(ValueError, match='predicts no boxes'):
            predict_drawings(learn, half_bright, free, Question('boxes', ('cell',)), None)


@pytest.mark.filterwarnings('ignore')
def test_a_detector_draws_its_boxes_in_pixels_of_the_picture(tmp_path):
    for i in range(8):
        pixels = (255 * Squares()(10 + i).clamp(0, 1)).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((96, 144), Image.Resampling.NEAREST).save(
            tmp_path / f'{i}.png'
        )  # two times as wide, three times as high
    pool = Pool.from_folder(tmp_path)
    boxes = {
        f'{i}.png': {
            'boxes': (np.array(box_of(10 + i)) * [2, 3, 2, 3]).tolist(),
            'labels': ['square'],
        }
        for i in range(8)
    }
    pool.label(['0.png', '2.png', '3.png', '4.png'], [boxes[f'{i}.png'] for i in (0, 2, 3, 4)])
    block = DataBlock(
        (ImageBlock, BBoxBlock, BBoxLblBlock(vocab=['square'])),
        n_inp=1,
        item_tfms=Resize(48, ResizeMethod.Squish),
    )
    learn = ActiveLearner(
        detection_learner(pool.dataloaders(block, bs=2, num_workers=0), small_fcos()), pool
    )
    learn.model.load_state_dict(trained_weights())
    with torch.no_grad():
        learn.model.model.head.classification_head.cls_logits.bias += 0.7  # a surer one
    hooks = len(learn.model._forward_pre_hooks)
    with learn.no_bar():
        page = Page(learn.annotate(query_of(pool, ['1.png', '5.png'])))
    assert len(learn.model._forward_pre_hooks) == hooks
    for place, uid in enumerate(('1.png', '5.png')):
        guess = page.item(place)[0]['guess']
        scores = page.item(place)[0]['scores']
        assert len(scores) == len(guess['labels']) and all(0.5 <= s <= 1 for s in scores)
        assert (
            set(guess['labels']) == {0}
            and box_iou(torch.tensor(guess['boxes'][:1]), torch.tensor(boxes[uid]['boxes'])).item()
            > 0.3
        )  # those of the small picture would not meet it
    page.say(0, 'label', guess)
    assert set(pool.history.iloc[-1].note['guess']['labels']) == {'square'}
    assert set(pool.history.iloc[-1].note['guess']) == {'boxes', 'labels'}
    cropped = ActiveLearner(
        detection_learner(
            pool.dataloaders(
                DataBlock(
                    (ImageBlock, BBoxBlock, BBoxLblBlock(vocab=['square'])),
                    n_inp=1,
                    item_tfms=Resize(48),
                ),
                bs=2,
                num_workers=0,
            ),
            small_fcos(),
        ),
        pool,
    )
    with cropped.no_bar(), pytest.warns(FastaiALWarning, match='was cropped or padded'):
        assert 'guess' not in Page(cropped.annotate(query_of(pool, ['5.png']))).item(0)[0]


@pytest.mark.filterwarnings('ignore')
def test_a_kind_that_the_learner_does_not_train_on_is_refused(pictures):
    pictures.label(NAMES[:3], ['a', 'b', 'a'])
    dls = pictures.dataloaders(
        DataBlock((ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b']))),
        bs=2,
        num_workers=0,
    )
    for kind in ('labels', 'boxes'):
        with pytest.raises(ValueError, match=f"kind='{kind}' .* this learner trains on one class"):
            Annotator(pictures, NAMES, kind=kind, dls=dls)
    assert Annotator(pictures, NAMES, kind='class', dls=dls).question.classes == ('a', 'b')


def test_instructions_and_the_name_of_the_item(pictures):
    page = Page(Annotator(pictures, NAMES, classes=['a', 'b'], instructions='Which letter?'))
    assert page.setup()['instructions'] == 'Which letter?' and page.item(2)[0]['name'] == '2.png'
    default = Page(Annotator(pictures, NAMES, classes=['a', 'b'])).setup()
    assert default['instructions'] == 'Choose one class.'
    with pytest.raises(TypeError, match='instructions=3 is not a text'):
        Annotator(pictures, NAMES, classes=['a', 'b'], instructions=3)


def test_the_last_ten_answers_are_shown(pictures):
    page = Page(Annotator(pictures, NAMES, classes=['a', 'b'], annotator='anna'))
    assert page.setup()['recent'] == []
    page.say(0, 'label', 1)
    page.say(3, 'skip')
    page.say(1, 'ignore')
    done = page.say(0, 'label', 0)
    assert [(r['place'], r['name'], r['words']) for r in done['recent']] == [
        (0, '0.png', 'a'),
        (1, '1.png', 'ignored'),
        (3, '3.png', 'skipped'),
    ]
    pictures.label(['2.png'], ['b'], annotator='ben')  # the strip shows one's own answers only
    assert len(page.setup()['recent']) == 3


def test_a_flag_takes_a_comment(pictures):
    page = Page(Annotator(pictures, NAMES, classes=['a', 'b'], annotator='anna'))
    page.say(0, 'flag', 'blurred')
    item = page.item(0)[0]
    assert (item['flagged'], item['comment']) == (True, 'blurred')
    page.say(0, 'flag', 'a wolf?')  # another comment does not take the flag down
    assert pictures.flagged.loc['0.png', 'note'] == {'comment': 'a wolf?'}
    assert page.item(0)[0]['comment'] == 'a wolf?'
    for wrong in ('', ' ', 3, [1], '\ud800'):
        assert 'Not saved' in page.say(0, 'flag', wrong)['error']
    page.say(0, 'flag')
    item = page.item(0)[0]
    assert (item['flagged'], item['comment']) == (False, '') and len(pictures.flagged) == 0


@pytest.mark.parametrize(
    'number, words',
    [
        (123456.7, '123\u202f457'),
        (0.123456, '0.1235'),
        (2.5, '2.5'),
        (100.0, '100'),
        (0.0, '0'),
        (-1234.56, '-1\u202f235'),
        (1e-9, '1e-09'),
        (1e20, '1e+20'),
        (9999.99, '10\u202f000'),
        (float('inf'), 'inf'),
    ],
)
def test_numbers_in_words(number, words):
    assert describe_label(number) == words


def test_the_page_is_one_script_in_which_no_name_occurs_twice():
    script = module._script()
    folder = Path(module.__file__).parent / 'panel'
    assert sorted(p.stem for p in folder.glob('*.js')) == sorted(module._PARTS.split())
    names = re.findall(r'^(?:const|let|class|function) (\w+)', script, re.M)
    assert len(names) == len(set(names)) > 40
    assert not re.search(r'^import |https?://(?!www.w3.org/2000/svg)', script, re.M)
    assert re.findall(r'^export .*', script, re.M) == ['export default {']


def test_what_a_saved_notebook_shows_is_no_html_of_a_class():
    assert '<img' not in module._saved_html('<img src=x>')
