//! The document's logical structure, for readers that speak and for machines: built with the layout, filled while drawing.

use krilla::tagging::{Identifier, Node, TagGroup, TagKind, TagTree};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeId(usize);

struct Element {
    tag: TagKind,
    children: Vec<Child>,
}

enum Child {
    Element(usize),
    Content(Identifier),
}

#[derive(Default)]
pub struct Structure {
    elements: Vec<Element>,
    roots: Vec<usize>,
}

impl Structure {
    pub fn root(&mut self, tag: impl Into<TagKind>) -> NodeId {
        let id = self.element(tag);
        self.roots.push(id.0);
        id
    }

    pub fn under(&mut self, parent: NodeId, tag: impl Into<TagKind>) -> NodeId {
        let id = self.element(tag);
        self.elements[parent.0].children.push(Child::Element(id.0));
        id
    }

    fn element(&mut self, tag: impl Into<TagKind>) -> NodeId {
        self.elements.push(Element { tag: tag.into(), children: Vec::new() });
        NodeId(self.elements.len() - 1)
    }

    /// What was drawn belongs there.
    pub fn content(&mut self, at: NodeId, identifier: Identifier) {
        self.elements[at.0].children.push(Child::Content(identifier));
    }

    pub fn into_tree(self) -> TagTree {
        let mut tree = TagTree::new();
        for root in &self.roots {
            tree.push(self.group(*root));
        }
        tree
    }

    fn group(&self, at: usize) -> TagGroup {
        let element = &self.elements[at];
        let children = element.children.iter().map(|child| match child {
            Child::Element(id) => Node::Group(self.group(*id)),
            Child::Content(identifier) => Node::Leaf(*identifier),
        });
        TagGroup::with_children(element.tag.clone(), children.collect())
    }
}
