"""Exports of Label Studio, made with its own SDK and converter; `python
tests/labelstudio_exports.py` writes them to tests/labelstudio"""

import json
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / 'annotate' / 'labelstudio'
CONFIG = """<View>
  <Image name="photo" value="$image" rotateControl="true"/>
  <Choices name="animal" toName="photo"><Choice value="cat"/><Choice value="dog"/></Choices>
  <Choices name="signs" toName="photo" choice="multiple">
    <Choice value="old"/><Choice value="ill"/></Choices>
  <RectangleLabels name="bbox" toName="photo">
    <Label value="cat"/><Label value="dog"/></RectangleLabels>
  <BrushLabels name="brush" toName="photo"><Label value="fur"/><Label value="eye"/></BrushLabels>
  <PolygonLabels name="outline" toName="photo"><Label value="cat"/></PolygonLabels>
  <EllipseLabels name="ring" toName="photo"><Label value="cat"/></EllipseLabels>
  <Number name="weight" toName="photo"/><Rating name="stars" toName="photo"/>
  <TextArea name="notes" toName="photo"/>
</View>"""
WIDTH, HEIGHT = 40, 30  # of the pictures, as they lie in their files
BLOB = np.zeros((HEIGHT, WIDTH), dtype=bool)
BLOB[3:12, 5:30] = True


def sized(entry: dict, width: int = WIDTH, height: int = HEIGHT, rotation: int = 0) -> dict:
    "What the editor adds to a drawing"
    return entry | dict(original_width=width, original_height=height, image_rotation=rotation)


def exports() -> dict:
    "name -> a list of tasks, as the SDK has them"
    from label_studio_sdk.converter import brush
    from label_studio_sdk.label_interface import LabelInterface

    interface, ids, numbers = LabelInterface(CONFIG), iter(range(1, 1000)), iter(range(1, 1000))

    def entry(name, labels=None, **value):  # one entry of a result
        return interface.get_control(name).label(labels, **value)._dict() | dict(id=f'r{next(ids)}')

    def box(label='cat', rotation=0, **of):
        return sized(
            entry('bbox', [label], x=10, y=20, width=25, height=50, rotation=rotation), **of
        )

    def stroke(label='fur', mask=BLOB):
        return sized(
            entry(
                'brush',
                [label],
                format='rle',
                rle=[int(b) for b in brush.mask2rle(mask.astype(np.uint8) * 255)],
            ),
            mask.shape[1],
            mask.shape[0],
        )

    def by(who, *result, skipped=False, **more):
        return (
            dict(
                id=next(numbers),
                completed_by=who,
                was_cancelled=skipped,
                lead_time=2.5,
                created_at='2026-01-01T09:00:00.000000Z',
                updated_at='2026-01-01T10:00:00.000000Z',
                result=list(result),
            )
            | more
        )

    def task(uid, *annotations, **more):
        return (
            dict(
                id=next(numbers),
                data=dict(uid=uid, image=f'/data/local-files/?d=pets/{uid}'),
                annotations=list(annotations),
            )
            | more
        )

    def without(entry, *keys):
        return {k: v for k, v in entry.items() if k not in keys}

    polygon, ellipse = (
        sized(entry('outline', ['cat'], points=[[10, 20], [35, 20], [35, 70]])),
        sized(entry('ring', ['cat'], x=50, y=50, radiusX=10, radiusY=10, rotation=0)),
    )
    first, second = box(), box('dog', rotation=90)
    return dict(
        choices=[
            task(
                'plain.png',
                by(1, entry('animal', ['cat'])),
                by(2, entry('animal', ['dog'])),
                by(3, skipped=True),
                predictions=[
                    dict(model_version='v1', score=0.5, result=[entry('animal', ['dog'])])
                ],
            )
        ],
        several_choices=[task('plain.png', by(1, entry('signs', ['old', 'ill'])))],
        numbers=[task('plain.png', by(1, entry('weight', number=2.5)))],
        stars=[task('plain.png', by(1, entry('stars', rating=4)))],
        texts=[task('plain.png', by(1, entry('notes', text=['a <b>cat</b>', 'asleep'])))],
        rectangles=[task('plain.png', by(1, box(), box('dog')))],
        quarter_turns=[
            task(
                'plain.png',
                by(
                    1,
                    *(
                        sized(entry('bbox', ['cat'], x=50, y=50, width=25, height=20, rotation=r))
                        for r in (0, 90, 180, 270)
                    ),
                ),
            )
        ],
        slanted=[task('plain.png', by(1, box(rotation=30)))],
        brushes=[
            task('plain.png', by(1, stroke('fur'), stroke('eye', BLOB & (np.arange(WIDTH) < 9))))
        ],
        polygons=[task('plain.png', by(1, polygon))],
        ellipses=[task('plain.png', by(1, ellipse))],
        several_controls=[
            task(
                'plain.png',
                by(1, box(), entry('animal', ['dog']), entry('weight', number=3)),
                by(2, box('dog'), polygon),
            ),
            task('other.png', by(1, entry('animal', ['cat']))),
        ],
        two_choices=[
            task('plain.png', by(1, entry('animal', ['cat']), entry('signs', ['old']))),
            task('other.png', by(1, entry('signs', ['ill']))),
        ],
        relations=[
            task(
                'plain.png',
                by(
                    1,
                    first,
                    second,
                    dict(
                        type='relation', from_id=first['id'], to_id=second['id'], direction='right'
                    ),
                ),
            )
        ],
        turned_by_exif=[
            task('turned.jpg', by(1, box(width=HEIGHT, height=WIDTH))),
            task('upside_down.jpg', by(1, box())),
        ],
        strokes_turned_by_exif=[task('turned.jpg', by(1, stroke(mask=np.rot90(BLOB, -1))))],
        turned_view=[task('plain.png', by(1, box() | dict(image_rotation=90)))],
        another_picture=[
            task(
                'plain.png',
                by(1, box(width=400)),
                by(2, box(width=400, height=300)),
                by(3, box(width=HEIGHT, height=WIDTH)),
            )
        ],
        without_numbers=[
            task(
                'plain.png',
                without(by(1, entry('animal', ['cat'])), 'id'),
                without(by(2, entry('animal', ['dog'])), 'id'),
            ),
            task(
                'other.png',
                dict(result=[entry('animal', ['cat'])]),
                dict(result=[entry('animal', ['dog'])]),
            ),
        ],
        by_the_api=[
            task(
                'plain.png',
                dict(
                    result=[
                        without(box(), 'original_width', 'original_height', 'image_rotation', 'id')
                    ]
                ),
            )
        ],
        nothing_drawn=[task('plain.png', by(1)), task('other.png', by(1, box()))],
    )


def old_formats() -> dict:
    """name -> the same answers as JSON-MIN, by the converter, and in the format of Label Studio
    before 1.0"""
    from label_studio_sdk.converter import Converter

    tasks = exports()['choices']
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'tasks.json').write_text(json.dumps(tasks))
        Converter(CONFIG, folder).convert_to_json_min(
            f'{folder}/tasks.json', f'{folder}/out', is_dir=False
        )
        json_min = json.loads((Path(folder) / 'out' / 'result.json').read_text())
    return dict(
        json_min=json_min,
        completions=[
            {k: v for k, v in t.items() if k not in ('annotations', 'predictions')}
            | dict(completions=t['annotations'])
            for t in tasks
        ],
    )


def imported() -> dict:
    "name -> tasks with annotations that the converter made of COCO and of YOLO"
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    coco = dict(
        images=[dict(id=1, file_name='plain.png', width=WIDTH, height=HEIGHT)],
        categories=[dict(id=0, name='cat'), dict(id=1, name='dog')],
        annotations=[
            dict(
                id=1,
                image_id=1,
                category_id=1,
                bbox=[4, 6, 10, 15],
                iscrowd=0,
                area=150,
                segmentation=[],
            )
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'coco.json').write_text(json.dumps(coco))
        convert_coco_to_ls(
            f'{folder}/coco.json',
            f'{folder}/out.json',
            out_type='annotations',
            to_name='photo',
            from_name='bbox',
        )
        tasks = json.loads((Path(folder) / 'out.json').read_text())
    for t in tasks:
        t['data']['uid'] = 'plain.png'
        for a in t['annotations']:
            for k, entry in enumerate(a['result']):
                entry['id'] = f'c{k}'
    return dict(coco=tasks)


def everything() -> dict:
    return exports() | old_formats() | imported()


if __name__ == '__main__':
    FOLDER.mkdir(exist_ok=True)
    lines = [
        f'{json.dumps(name)}: {json.dumps(tasks, separators=(",", ":"))}'
        for name, tasks in everything().items()
    ]
    (FOLDER / 'exports.json').write_text('{\n' + ',\n'.join(lines) + '\n}\n')
