"""graft.features() and the transformer, in and out of scikit-learn."""
import copy
import pickle
import sys

import numpy as np
import pytest

import graft

MINI = {"backbone": "vgg-mini", "input_size": 64}


def test_features(files, tmp_path):
    some = files[:20]
    pooled = graft.features(some, **MINI)
    assert pooled.shape == (20, 160) and pooled.dtype == np.float32 and pooled.std() > 0
    maps = graft.features(some, pool="none", **MINI)
    assert maps.shape == (20, 160, 2, 2)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(graft.features(some, pool="flatten", **MINI), maps.reshape(20, -1))
    read = [open(file, "rb").read() for file in some]
    np.testing.assert_array_equal(graft.features(read, **MINI), pooled)
    assert graft.features(some[0], **MINI).shape == (160,)
    assert graft.features([], **MINI).shape == (0, 160)
    early = graft.features(some, until="block2_pool", **MINI)
    assert early.shape == (20, 32)
    assert graft.features(some[:2], backbone="vgg-mini", input_size=(32, 96), pool="none").shape == (2, 160, 1, 3)


def test_features_of_a_run(run, files):
    """A saved model's backbone serves as weights."""
    np.testing.assert_allclose(graft.features(files[:3], weights=run, **MINI), graft.features(files[:3], **MINI))


def test_errors(files):
    for options, words in (({"backbone": "resnet"}, "backbone"), ({"pool": "max"}, "pool"), ({"batch_size": 0}, "batch_size"),
                           ({"until": "block9_pool"}, "block9_pool"), ({"input_size": 8}, "8"),
                           ({"precision": "fp8"}, "precision"), ({"on_error": "x"}, "on_error")):
        with pytest.raises(graft.UsageError, match=words):
            graft.features(files[:1], **{**MINI, **options})
    with pytest.raises(graft.Error, match="missing.h5"):
        graft.features(files[:1], backbone="vgg16", weights="missing.h5")
    with pytest.warns(RuntimeWarning, match="missing.jpg"):
        found = graft.features([files[0], "missing.jpg"], on_error="nan", **MINI)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
    with pytest.raises(graft.InputError, match="missing.jpg"):
        graft.features([files[0], "missing.jpg"], **MINI)


def test_keras_weights_are_read(files, tmp_path):
    """By the package's own graft-read-h5."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "broken.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(graft.InputError, match="broken.h5"):
        graft.features(files[:1], backbone="vgg16", weights=tmp_path / "broken.h5")


def test_transformer_without_scikit_learn(files):
    extractor = graft.FeatureExtractor("vgg-mini", input_size=64)
    assert extractor.get_params()["input_size"] == 64
    expected = graft.features(files[:6], **MINI)
    np.testing.assert_array_equal(extractor.fit_transform(files[:6]), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).transform(files[:6]), expected)
    np.testing.assert_array_equal(copy.deepcopy(extractor)(files[:6]), expected)
    assert extractor.shape == (160,) and len(extractor.get_feature_names_out()) == 160
    extractor.set_params(until="block2_pool")
    assert extractor.transform(files[:2]).shape == (2, 32)
    with pytest.raises(graft.UsageError, match="depth"):
        extractor.set_params(depth=3)
    assert repr(extractor) == "FeatureExtractor(backbone='vgg-mini', until='block2_pool', input_size=64)"


def test_scikit_learn_is_not_imported(python, files):
    out = python(f"""
import sys, graft
graft.FeatureExtractor("vgg-mini", input_size=32).fit_transform([{files[0]!r}])
print([m for m in ("sklearn", "PIL", "torch", "tqdm", "pandas") if m in sys.modules])
""")
    assert out.strip() == "[]"


def test_scikit_learn(files):
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = [file.split("/")[-2] for file in files]
    extractor = graft.FeatureExtractor("vgg-mini", input_size=64)
    extractor.fit()
    copied = clone(extractor)
    assert copied is not extractor and copied.get_params() == extractor.get_params()
    pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression(max_iter=2000))
    # Drawn scenes are told apart well above chance, 1/6.
    assert cross_val_score(pipeline, files, labels, cv=3).mean() > 0.5
    pipeline.fit(files, labels)
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.predict(files), pipeline.predict(files))
    search = GridSearchCV(pipeline, {"featureextractor__until": ["block2_pool", None]}, cv=2)
    assert set(search.fit(files, labels).best_params_) == {"featureextractor__until"}
    parallel = cross_val_score(pipeline, files, labels, cv=2, n_jobs=2)
    assert len(parallel) == 2 and "FeatureExtractor" in repr(pipeline)
    assert pipeline._repr_html_() if hasattr(pipeline, "_repr_html_") else True
    column = np.array(files[:3], dtype=object).reshape(-1, 1)
    np.testing.assert_array_equal(extractor.transform(column), extractor.transform(files[:3]))
