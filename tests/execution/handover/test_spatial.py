"""SpatialData there and back: tables in parts, elements one by one, files read by the child."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover import Store, files_of
from ovagent_jupyter.execution.handover.codec import Encoded, Encoder, decode, encode
from ovagent_jupyter.execution.handover.objects import assemble, kind_of, open_object
from ovagent_jupyter.execution.handover.slots import Tree
from tests.execution.handover.border import Border
from tests.execution.handover.forgeries import CHANGES, Real
from tests.execution.handover.identical import assert_identical
from tests.execution.handover.real_child import changed_in_a_child

spatialdata: Any = pytest.importorskip("spatialdata")
geopandas: Any = pytest.importorskip("geopandas")
shapely: Any = pytest.importorskip("shapely")
xarray: Any = pytest.importorskip("xarray")
transformations: Any = pytest.importorskip("spatialdata.transformations")

pytestmark = pytest.mark.filterwarnings("ignore")
ELEMENTS = ("images", "labels", "points", "shapes")
FRACTIONS = "blobs_multiscale_labels"
"""An element whose dask graph holds a function inside another: nobody can pickle it."""
POLYGON = shapely.Polygon([(0, 0), (4, 0), (4, 4)], [[(2, 1), (3, 1), (3, 2)]])
SHAPES = {
    "points": [shapely.Point(1, 2), shapely.Point(-0.0, 1e300)],
    "heights": [shapely.Point(1, 2, 3), shapely.Point(1, 2)],
    "polygons": [POLYGON, shapely.box(0, 0, 1, 1)],
    "all": [
        POLYGON,
        None,
        shapely.MultiPolygon([POLYGON, shapely.box(9, 9, 10, 10)]),
        shapely.LineString([(0, 0), (1, 1)]),
        shapely.MultiPoint([(0, 0), (1, 1)]),
        shapely.MultiLineString([[(0, 0), (1, 1)], [(2, 2), (3, 3)]]),
        shapely.box(0, 0, 2, 2),
    ],
    "none": [],
}


def blobs() -> Any:
    """An object with an element of each kind."""
    return spatialdata.datasets.blobs(length=64, n_points=20)


def assert_same_element(one: Any, other: Any) -> None:
    """Fail where two elements differ."""
    assert type(one) is type(other)
    assert repr(dict(one.attrs)) == repr(dict(other.attrs))
    if hasattr(one, "active_geometry_name"):
        assert (one.active_geometry_name, one.crs) == (other.active_geometry_name, other.crs)
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other))
    elif hasattr(one, "children"):
        assert list(one.children) == list(other.children)
        for name, scale in one.children.items():
            assert scale.to_dataset().identical(other[name].to_dataset())
    elif hasattr(one, "npartitions"):
        assert (one.npartitions, one.divisions) == (other.npartitions, other.divisions)
        pd.testing.assert_frame_equal(one.compute(), other.compute())
    else:
        assert one.chunks == other.chunks
        assert one.identical(other.assign_attrs(one.attrs))


def assert_same(one: Any, other: Any) -> None:
    """Fail where two objects differ."""
    assert one.path == other.path
    assert one.attrs == other.attrs
    for group in ELEMENTS:
        assert set(getattr(one, group)) == set(getattr(other, group))
        for name, element in getattr(one, group).items():
            assert_same_element(element, getattr(other, group)[name])
    assert list(one.tables) == list(other.tables)
    for name, adata in one.tables.items():
        assert_identical(adata, other.tables[name])


def without_fractions() -> Any:
    """One of which all elements can go."""
    sdata = blobs()
    del sdata.labels[FRACTIONS]
    return sdata


def test_it_arrives_as_it_is(tmp_path: Path) -> None:
    sdata = without_fractions()
    sdata.attrs["sample"] = {"id": 7}
    border = Border(tmp_path, {"sdata": sdata})
    assert border.left == ()
    assert_same(sdata, border.namespace["sdata"])
    changes = border.run(
        "sdata['blobs_image'].mean().compute(); sdata.points['blobs_points'].x.sum()"
    )
    assert changes.diffs[0].kind == "unchanged"
    assert changes.left_behind == ()


def test_it_arrives_in_a_frame_of_something_else(tmp_path: Path) -> None:
    own = {"shapes": blobs()["blobs_circles"], "image": blobs()["blobs_image"]}
    border = Border(tmp_path, {"own": own})
    for name, element in own.items():
        assert_same_element(element, border.namespace["own"][name])
    assert border.run("").diffs[0].kind == "unchanged"


def test_it_is_kept_and_restored(tmp_path: Path) -> None:
    sdata = without_fractions()
    saved = Store(tmp_path).save({"sdata": sdata})["sdata"]
    assert not saved.differs(sdata)
    assert_same(sdata, saved.restore())
    sdata["table"].obs["one"] = 1
    assert saved.differs(sdata)


def test_what_cannot_go_is_named_and_stays(tmp_path: Path) -> None:
    sdata = blobs()
    border = Border(tmp_path, {"sdata": sdata})
    assert [notice.path for notice in border.left] == [f"sdata.labels['{FRACTIONS}']"]
    new: Any = border.run("sdata['table'].obs['one'] = 1").objects["sdata"]
    assert_same_element(sdata[FRACTIONS], new[FRACTIONS])


def test_changes_of_a_table_come_back(tmp_path: Path) -> None:
    sdata = blobs()
    border = Border(tmp_path, {"sdata": sdata})
    code = (
        "import numpy as np, pandas as pd\n"
        "table = sdata.tables['table']\n"
        "table.obs['leiden'] = pd.Categorical(np.resize(['a', 'b'], table.n_obs))\n"
        "table.obsm['X_pca'] = np.zeros((table.n_obs, 2))\n"
        "table.uns['found'] = {'n': 3}"
    )
    changes = border.run(code)
    new: Any = changes.objects["sdata"]
    cells = sdata["table"].n_obs
    assert changes.diffs[0].summary() == (
        "sdata: +tables/table/obs/leiden (2 levels), "
        f"+tables/table/obsm/X_pca ({cells} × 2), +tables/table/uns/found"
    )
    here = {"sdata": blobs()}
    exec(code, here)
    assert_same(here["sdata"], new)
    assert "leiden" not in sdata["table"].obs
    fewer = border.run("sdata.tables['table'] = table[3:].copy()")
    assert "~tables/table/obs_names (−3 cells)" in fewer.diffs[0].summary()
    assert fewer.objects["sdata"]["table"].n_obs == cells - 3  # type: ignore[index]


def test_elements_come_back(tmp_path: Path) -> None:
    border = Border(tmp_path, {"sdata": without_fractions()})
    code = (
        "import numpy as np, spatialdata as sd\n"
        "from spatialdata.transformations import *\n"
        "sdata.shapes['blobs_circles']['area'] = 1.5\n"
        "del sdata.shapes['blobs_polygons']\n"
        "sdata.images['mine'] = sd.models.Image2DModel.parse(\n"
        "    np.arange(144.0).reshape(2, 8, 9), dims=('c', 'y', 'x'), c_coords=['r', 'g'])\n"
        "sdata.labels['cells'] = sd.models.Labels2DModel.parse(\n"
        "    np.zeros((8, 9), int), dims=('y', 'x'), chunks=(4, 9))\n"
        "frame = sdata.points['blobs_points'].compute()\n"
        "frame['z'] = 1.0\n"
        "sdata.points['more'] = sd.models.PointsModel.parse(frame, npartitions=2)\n"
        "matrix = [[1, 2, 3], [4, 5, 6], [0, 0, 1]]\n"
        "set_transformation(sdata['blobs_image'], Sequence([\n"
        "    Scale([2, 3], ('x', 'y')), Affine(matrix, ('x', 'y'), ('x', 'y')), Identity(),\n"
        "    Translation([1], ('x',)), MapAxis({'x': 'y', 'y': 'x'})]), 'micron')\n"
        "sdata.tables['second'] = sdata.tables['table'].copy()\n"
        "sdata.attrs['sample'] = 1\n"
    )
    changes = border.run(code)
    assert changes.left_behind == ()
    here: dict[str, Any] = {"sdata": without_fractions()}
    exec(code, here)
    assert_same(here["sdata"], changes.objects["sdata"])
    assert {str(slot) for slot in changes.diffs[0].slots} == {
        "~shapes/blobs_circles (5 × 3)", "−shapes/blobs_polygons", "+images/mine (2 × 8 × 9)",
        "+labels/cells (8 × 9)", "+points/more", "~images/blobs_image (3 × 64 × 64)",
        "+tables/second", "+attrs/sample",
    }  # fmt: skip


def test_a_new_object_comes_back(tmp_path: Path) -> None:
    border = Border(tmp_path, {"sdata": without_fractions()})
    code = "shapes = sdata['blobs_circles']; new = sdata"
    changes = border.run(code, ["new", "shapes"])
    expected = without_fractions()
    del expected.images["blobs_multiscale_image"]  # its smaller scales are means, not computed yet
    assert_same(expected, changes.objects["new"])
    assert changes.diffs[1].summary() == "new: new, SpatialData"
    assert changes.diffs[2].summary() == "shapes: new, GeoDataFrame 5 × 2"


def test_scales_in_memory_come_back(tmp_path: Path) -> None:
    border = Border(tmp_path, {"sdata": without_fractions()})
    code = "sdata.images['blobs_multiscale_image'] = sdata['blobs_multiscale_image'].persist()"
    changes = border.run(code)
    assert changes.left_behind == ()
    here = {"sdata": without_fractions()}
    exec(code, here)
    assert_same(here["sdata"], changes.objects["sdata"])


def test_what_is_in_a_store_is_read_by_the_child(tmp_path: Path) -> None:
    from dask.callbacks import Callback

    store = tmp_path / "cells.zarr"
    blobs().write(store)
    sdata = spatialdata.read_zarr(store)
    files = files_of({"sdata": sdata})
    assert store in files
    assert store / "points/blobs_points/points.parquet" in files
    computed: list[object] = []
    with Callback(start=computed.append):
        border = Border(tmp_path, {"sdata": sdata})
        assert border.left == ()
        assert border.run("").diffs[0].kind == "unchanged"
        changes = border.run(
            "sdata['table'].obs['one'] = 1\n"
            "sdata.images['blobs_image'] = sdata['blobs_image'] + 1\n"
            "sdata.path = '/somewhere/else'"
        )
    assert computed == []
    new: Any = changes.objects["sdata"]
    assert changes.diffs[0].summary() == "sdata: +tables/table/obs/one"
    assert (
        "computed as needed"
        in {n.path: n.reason for n in changes.left_behind}["sdata.images['blobs_image']"]
    )
    del new["table"].obs["one"]
    assert_same(sdata, new)


@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_the_same(name: str, crs: str | None) -> None:
    frame = geopandas.GeoDataFrame({"n": range(len(SHAPES[name]))}, geometry=SHAPES[name], crs=crs)
    made: Any = decode(encode(frame))
    assert made.crs == frame.crs
    pairs = zip(shapely.to_wkb(frame.geometry), shapely.to_wkb(made.geometry), strict=True)
    assert all(one == other for one, other in pairs)
    assert_same_element(frame, made)


@pytest.mark.parametrize(
    "geometry",
    [shapely.Point(), shapely.GeometryCollection([POLYGON]), shapely.set_srid(POLYGON, 3)],
)
def test_shapes_without_a_form_are_refused(geometry: Any) -> None:
    frame = geopandas.GeoDataFrame(geometry=[geometry])
    with pytest.raises(HandoverError):
        encode(frame)
    assert encode(frame, allow_pickle=True).pickled
    own = geopandas.GeoDataFrame(geometry=[POLYGON], crs="+proj=laea +lat_0=1.25")
    with pytest.raises(HandoverError, match="reference system"):
        encode(own)


def test_a_place_on_disk_is_not_the_childs_to_choose() -> None:
    slots = open_object(without_fractions()).slots
    for path in ("/somewhere", Path("/somewhere")):
        with pytest.raises(HandoverError, match="a place on disk"):
            assemble(Tree("spatialdata", {**slots, ("path",): path}))
    with pytest.raises(HandoverError):
        assemble(Tree("spatialdata", {**slots, ("more",): 1}))
    with pytest.raises(HandoverError):
        assemble(Tree("spatialdata", {**slots, ("images", "a", "b"): 1}))


@pytest.mark.parametrize(
    ("rings", "polygons"),
    [
        ([0, 5], [0, 2]),
        ([0, 400], [0, 1]),
        ([0, -4, 4], [0, 2]),
        ([0, 4, 4], [0, 1]),
        ([1, 4], [0, 1]),
        ([], [0, 1]),
        ([0, 4], []),
        ([0, 4], [0, 1, 1]),
        ([0, 4], [0, 2**40]),
        ([0, 2**63 - 1, -(2**63), 4], [0, 3]),
    ],
)
def test_offsets_that_would_read_elsewhere(rings: list[int], polygons: list[int]) -> None:
    encoder = Encoder()
    node = {
        "t": "geometries",
        "k": encoder.node(np.array([6], np.int8)),
        "p": [
            [
                6,
                encoder.node(np.array([[0.0, 0], [1, 0], [1, 1], [0, 0]])),
                [
                    encoder.node(np.array(rings, np.int64)),
                    encoder.node(np.array(polygons, np.int64)),
                ],
            ]
        ],
        "c": None,
    }
    with pytest.raises(HandoverError):
        decode(Encoded(node, tuple(encoder.buffers)))


def use(element: Any) -> None:
    """Look at all of an element, as a program would that trusts it."""
    if hasattr(element, "geometry"):
        shapely.to_wkb(element.geometry.array)
    elif hasattr(element, "compute"):
        element.compute()


@pytest.mark.parametrize("seed", range(6))
def test_forged_answers(tmp_path: Path, seed: int) -> None:
    sdata = spatialdata.SpatialData(
        shapes={"s": blobs()["blobs_multipolygons"]}, tables={"t": blobs()["table"]}
    )
    border = Border(tmp_path, {"sdata": sdata})
    exec(
        "import numpy as np, spatialdata as sd, pandas as pd\n"
        "s = sdata['s'].copy(); s['n'] = 1; sdata.shapes['s'] = s\n"
        "image = sd.models.Image2DModel.parse(np.ones((1, 4, 4)), dims=('c', 'y', 'x'))\n"
        "sdata.images['i'] = image\n"
        "points = pd.DataFrame({'x': [1.0, 2], 'y': [3.0, 4]})\n"
        "sdata.points['p'] = sd.models.PointsModel.parse(points)\n"
        "sdata.tables['t'].obs['one'] = 1\n",
        border.namespace,
    )
    with os.fdopen(border.answer(), "rb") as file:
        real = Real(file.read(), border.handed, border.store)
    assert set(real.read(real.data).objects["sdata"].images) == {"i"}  # type: ignore[attr-defined]
    chance = random.Random(seed)
    ended = {"refused": 0, "valid": 0}
    for _ in range(60):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made: Any = real.read(chance.choice(CHANGES)(real.data, chance)).objects["sdata"]
        except HandoverError:
            ended["refused"] += 1
            continue
        except KeyError:
            continue  # it is told as unchanged
        ended["valid"] += 1
        assert kind_of(made) == "spatialdata"
        for group in ELEMENTS:
            for element in getattr(made, group).values():
                use(element)
    assert ended["refused"]


async def test_a_real_child_reads_the_store(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    store = tmp_path / "private" / "cells.zarr"
    blobs().write(store)
    own = {"sdata": spatialdata.read_zarr(store)}
    code = (
        "mean = float(sdata['blobs_image'].mean().compute())\n"
        "genes = len(sdata['blobs_points'].compute())\n"
        "sdata['table'].obs['one'] = 1\n"
        "sdata.images['twice'] = (sdata['blobs_image'] * 2).persist()"
    )
    changes = await changed_in_a_child(own, code, ["mean", "genes"])
    new: Any = changes.objects["sdata"]
    assert changes.left_behind == ()
    assert changes.objects["genes"] == 20
    image = own["sdata"]["blobs_image"]
    assert changes.objects["mean"] == pytest.approx(float(image.mean().compute()))
    assert np.array_equal(new["twice"].compute(), 2 * image.compute())
    assert (new["table"].obs["one"] == 1).all()
