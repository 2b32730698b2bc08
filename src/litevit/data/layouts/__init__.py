"""Which layout a data set is in, and where its parts are: one function for training, evaluation and the doctor.

| layout | what tells it |
|---|---|
| COCO 2017 | `annotations/{instances,panoptic}_{train,val}2017.json` beside `train2017/`, `val2017/` |
| Roboflow's COCO export | `{train,valid,test}/_annotations.coco.json` among the images |
| COCO JSON (CVAT, Label Studio, ...) | a `.json` with images, annotations, categories, and any folder of images |
| YOLO | `data.yaml` with `names` and `train`; or `images/`, `labels/` and `classes.txt` |
| Pascal VOC | `Annotations/*.xml` and `JPEGImages/`; or XML files among the images |
| masks | `images/` and `annotations/` (ADE20K), `masks/`; `{train,val}/{images,masks}`; `train/`, `train_masks/`; ... |
| class folders | a folder of images per class, in `train/`, `val/` or without splits |

Nothing is decoded here: names, folders and the heads of annotation files decide. `layout` says what a layout is, `find`
which one a data set is in; a file per layout knows its folders.
"""

from litevit.data.layouts.coco import find_image as find_image
from litevit.data.layouts.find import LOOKED_FOR as LOOKED_FOR
from litevit.data.layouts.find import TRAINED_BY as TRAINED_BY
from litevit.data.layouts.find import find_layout as find_layout
from litevit.data.layouts.find import layouts_of as layouts_of
from litevit.data.layouts.folders import find_file as find_file
from litevit.data.layouts.image_sets import listed_names as listed_names
from litevit.data.layouts.layout import ALL as ALL
from litevit.data.layouts.layout import Layout as Layout
from litevit.data.layouts.layout import Part as Part
from litevit.data.layouts.layout import Task as Task
from litevit.data.layouts.masks import JPEG as JPEG
from litevit.data.layouts.masks import MASK_ENDINGS as MASK_ENDINGS
from litevit.data.layouts.masks import MASK_SUFFIXES as MASK_SUFFIXES
from litevit.data.layouts.masks import NO_JPEG as NO_JPEG
from litevit.data.layouts.masks import is_mask_name as is_mask_name
from litevit.data.layouts.yolo import label_folder as label_folder
from litevit.data.layouts.yolo import read_yaml as read_yaml
