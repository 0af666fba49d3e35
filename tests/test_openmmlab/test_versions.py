"""Tests of mmmamba/openmmlab/versions.py: the packages it accepts."""

from importlib import metadata

import pytest

from mmmamba.openmmlab import versions

# As the README promises: the current stack and the classic one.
CURRENT = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.6',
}
CLASSIC = {
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'mmpretrain': '1.2.0',
}
# import name: current distribution, classic one, range
PACKAGES = {
    'mmengine': ('onedl-mmengine', 'mmengine', '0.10.4', '1.0.0'),
    'mmcv': ('onedl-mmcv', 'mmcv', '2.1.0', '2.4.0'),
    'mmdet': ('onedl-mmdetection', 'mmdet', '3.3.0', '4.0.0'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation', '1.2.2', '2.0.0'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain', '1.2.0', '2.0.0'),
}
REQUIRED = ['mmengine', 'mmcv']
OPTIONAL = ['mmdet', 'mmseg', 'mmpretrain']


@pytest.fixture
def install(monkeypatch):
    """Pretend that exactly these distributions are installed."""

    def install(versions):
        def version(distribution):
            if distribution not in versions:
                raise metadata.PackageNotFoundError(distribution)
            return versions[distribution]

        monkeypatch.setattr(metadata, 'version', version)

    return install


def only(versions, *names):
    """Keep the distributions of some packages."""
    wanted = {d for name in names for d in PACKAGES[name][:2]}
    return {d: v for d, v in versions.items() if d in wanted}


def test_backbone_needs_no_ops_of_mmcv(install):
    install({'mmengine': '0.10.7', 'mmcv-lite': '2.1.0'})
    versions.check_stack()


def refusal():
    """Return the message of check_stack's refusal."""
    with pytest.raises(ImportError) as error:
        versions.check_stack()
    return str(error.value)


def assert_helps(message, name):
    """Check that a message has the range and a command that installs it."""
    fork, _, low, high = PACKAGES[name]
    assert f'{name} >= {low}, < {high}' in message
    command = message.split('Run: ')[1]
    assert command.startswith('pip install ')
    assert f'"{fork}>={low},<{high}"' in command
    # What mmcv's build and torchvision need to come out right.
    for part in ('"torch===', '--no-build-isolation', '--no-cache-dir'):
        assert part in command


def test_the_stack_of_this_machine_is_accepted():
    versions.check_stack()


@pytest.mark.parametrize('edition', [CURRENT, CLASSIC])
@pytest.mark.parametrize('optional', [[], ['mmdet'], OPTIONAL])
def test_both_editions_are_accepted(edition, optional, install):
    install(only(edition, *REQUIRED, *optional))
    versions.check_stack()


@pytest.mark.parametrize('edition', [CURRENT, CLASSIC])
@pytest.mark.parametrize('name', REQUIRED)
def test_missing_required_package(edition, name, install):
    others = [n for n in PACKAGES if n != name]
    install(only(edition, *others))
    message = refusal()
    assert 'not installed' in message
    assert_helps(message, name)


@pytest.mark.parametrize('edition', [0, 1], ids=['current', 'classic'])
@pytest.mark.parametrize(
    'name, version',
    [
        ('mmengine', '0.10.3'),
        ('mmengine', '0.9.1'),
        ('mmengine', '1.0.0'),
        ('mmcv', '2.0.1'),
        ('mmcv', '1.7.2'),
        ('mmcv', '2.4.0'),
        ('mmdet', '3.2.0'),
        ('mmdet', '2.28.2'),
        ('mmdet', '4.0.0'),
        ('mmseg', '1.2.1'),
        ('mmseg', '2.0.0'),
        ('mmpretrain', '1.1.1'),
        ('mmpretrain', '2.0.0'),
        # A release candidate comes before its release.
        ('mmengine', '0.10.3rc9'),
        ('mmcv', '2.0.0rc4'),
        ('mmdet', '3.0.0rc6'),
        ('mmseg', '1.2.1.dev5'),
    ],
)
def test_version_out_of_range(name, version, edition, install):
    distribution = PACKAGES[name][edition]
    versions = dict(CLASSIC if edition else CURRENT)
    install({**versions, distribution: version})
    message = refusal()
    assert f'{distribution} {version} is installed' in message
    assert_helps(message, name)


@pytest.mark.parametrize(
    'name, version',
    [
        ('mmengine', '0.10.4'),
        ('mmengine', '0.11'),
        ('mmengine', '0.99.99'),
        ('mmcv', '2.1.0'),
        ('mmcv', '2.2.0'),
        ('mmcv', '2.1.0+cu121'),
        ('mmcv', '2.3.10'),
        ('mmdet', '3.3.0.post1'),
        ('mmdet', '3.10.0'),
        ('mmseg', '1.10'),
        ('mmpretrain', '1.2.0'),
    ],
)
def test_version_within_range(name, version, install):
    install({**CLASSIC, PACKAGES[name][1]: version})
    versions.check_stack()


def test_the_first_problem_is_reported_with_all_packages_wrong(install):
    install({})
    assert_helps(refusal(), 'mmengine')


def test_installed_packages(install):
    install({**only(CURRENT, 'mmengine', 'mmcv'), 'mmdet': '3.3.0'})
    assert versions.installed_packages() == {
        'mmengine': ('onedl-mmengine', '0.10.12'),
        'mmcv': ('onedl-mmcv', '2.3.6'),
        'mmdet': ('mmdet', '3.3.0'),
        'mmseg': ('onedl-mmsegmentation', None),
        'mmpretrain': ('onedl-mmpretrain', None),
    }
